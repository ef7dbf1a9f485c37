//! The graph as text for Graphviz.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::chain::EdgeKind;
use crate::graph::Graph;

impl Graph {
    /// The graph in Graphviz' dot language: seeds are boxes, the packages asked for are bold, run dependencies are solid
    /// lines, build dependencies dashed ones. Names of packages hold no character that needs quoting beyond `"`.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph packages {\n");
        let roots: HashSet<_> = self.roots().iter().copied().collect();
        for id in self.packages() {
            let shape = if self.recipe(id).seed().is_some() {
                "box"
            } else {
                "ellipse"
            };
            let style = if roots.contains(&id) {
                ", style=bold"
            } else {
                ""
            };
            let _ = writeln!(dot, "  \"{}\" [shape={shape}{style}];", self.name(id));
        }
        for id in self.packages() {
            for (kind, dependency) in self.edges(id) {
                let style = match kind {
                    EdgeKind::Build => " [style=dashed]",
                    EdgeKind::Run => "",
                };
                let (from, to) = (self.name(id), self.name(dependency));
                let _ = writeln!(dot, "  \"{from}\" -> \"{to}\"{style};");
            }
        }
        dot.push_str("}\n");
        dot
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::graph;

    #[test]
    fn seeds_roots_and_both_kinds_of_edges_are_told_apart() {
        let dot = graph("seed\nmusl: seed\ngtk+3.0: seed; musl", &["gtk+3.0"]).to_dot();
        let expected = "digraph packages {
  \"seed\" [shape=box];
  \"musl\" [shape=ellipse];
  \"gtk+3.0\" [shape=ellipse, style=bold];
  \"musl\" -> \"seed\" [style=dashed];
  \"gtk+3.0\" -> \"seed\" [style=dashed];
  \"gtk+3.0\" -> \"musl\";
}
";
        assert_eq!(dot, expected);
    }
}
