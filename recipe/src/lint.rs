//! What a careful reviewer would say of a recipe: what is allowed and yet a mistake, most likely.
//!
//! Everything here is a guess from the text alone. A script is cut into words as a shell would roughly do it; that is
//! enough to see a `date` that ends up in an output, and never runs anything.

use std::fmt;

use crate::error::Place;
use crate::recipe::{Dependency, Recipe, Script, Source};
use crate::source_url::SourceUrl;
use crate::words::{Word, covers, words};

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// About what.
    pub place: Place,
    /// What, and what to do about it.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// What there is to say about a recipe. `top_level` are the directories that an output may have at its top.
pub fn lint(recipe: &Recipe, top_level: &[&str]) -> Vec<Remark> {
    let mut remarks = Remarks {
        recipe,
        list: Vec::new(),
    };
    for warning in recipe.warnings() {
        remarks.add(Place::package(recipe.name()), warning.to_string());
    }
    remarks.dependencies("build-deps", recipe.build_deps());
    remarks.dependencies("run-deps", recipe.run_deps());
    remarks.dependencies("check-deps", recipe.check_deps());
    for source in recipe.sources() {
        remarks.source(source);
    }
    if let Some(build) = recipe.build() {
        remarks.script("build", build);
        remarks.build(build, top_level);
        if recipe.check().is_none() {
            let text = "has no `check`: nobody will notice when it stops to work";
            remarks.add(Place::package(recipe.name()), text);
        }
    }
    if let Some(check) = recipe.check() {
        remarks.script("check", check);
    }
    remarks.list
}

/// Commands whose answer differs between machines or days.
const UNSTEADY: [&str; 7] = [
    "date", "hostname", "id", "mktemp", "nproc", "uptime", "whoami",
];
/// Commands that want a network.
const NETWORK: [&str; 5] = ["curl", "git", "rsync", "svn", "wget"];
/// Commands that want to be somebody else.
const OWNERS: [&str; 5] = ["chgrp", "chown", "doas", "su", "sudo"];

struct Remarks<'a> {
    recipe: &'a Recipe,
    list: Vec<Remark>,
}

impl Remarks<'_> {
    fn add(&mut self, place: Place, text: impl Into<String>) {
        let text = text.into();
        self.list.push(Remark { place, text });
    }

    fn dependencies(&mut self, file: &'static str, list: &[Dependency]) {
        for pair in list.windows(2) {
            if pair[0].name > pair[1].name {
                let text = format!(
                    "`{}` stands behind `{}`: sort the list",
                    pair[1].name, pair[0].name
                );
                self.add(Place::line(self.recipe.name(), file, pair[1].line), text);
                return;
            }
        }
    }

    fn source(&mut self, source: &Source) {
        let place = || Place::line(self.recipe.name(), "fetch", source.line);
        let mut found = Vec::new();
        // A mirror stands for several servers, and a CID for whoever has the content.
        if let [SourceUrl::Web(_) | SourceUrl::File(_)] = source.urls[..] {
            found.push(format!(
                "there is one way only to `{}`: name a second `url:`, or a mirror",
                source.file
            ));
        }
        for url in &source.urls {
            if let SourceUrl::Web(url) = url
                && !path_of(url).contains(|c: char| c.is_ascii_digit())
            {
                found.push(format!(
                    "`{url}` names no version: it will be another file one day"
                ));
            }
        }
        let places: Vec<_> = found.into_iter().map(|text| (place(), text)).collect();
        for (place, text) in places {
            self.add(place, text);
        }
    }

    /// What holds for any script.
    fn script(&mut self, file: &'static str, script: &Script) {
        let text = String::from_utf8_lossy(&script.bytes);
        let shell = text
            .lines()
            .next()
            .is_some_and(|line| line.trim_end().ends_with("sh"));
        let stops = |line: &str| line.trim_start().starts_with("set -") && line.contains('e');
        if shell && !text.lines().any(stops) {
            let place = Place::whole(self.recipe.name(), file);
            self.add(
                place,
                "goes on after a command that failed: begin with `set -eu`",
            );
        }
    }

    /// What holds for the build script: it uses what it is given, and puts its output where outputs go.
    fn build(&mut self, build: &Script, top_level: &[&str]) {
        let text = String::from_utf8_lossy(&build.bytes);
        let all: Vec<_> = text.lines().flat_map(words).collect();
        let used = |name: &str| all.iter().any(|word| covers(&word.text, name));
        for source in self.recipe.sources().iter().filter(|s| !used(&s.file)) {
            let place = Place::line(self.recipe.name(), "fetch", source.line);
            let text = format!("`build` does not mention `{}`", source.file);
            self.add(place, text);
        }
        for file in self.recipe.files() {
            let mut parts = file.path.split('/');
            if !used(&file.path) && !parts.any(used) {
                let place = Place::whole(self.recipe.name(), &format!("files/{}", file.path));
                self.add(place, "`build` does not mention it");
            }
        }
        for (number, line) in (1..).zip(text.lines()) {
            for remark in about_line(&words(line)) {
                self.add(Place::line(self.recipe.name(), "build", number), remark);
            }
            for top in tops(&words(line)) {
                if !top_level.contains(&top.as_str()) {
                    let place = Place::line(self.recipe.name(), "build", number);
                    let list = top_level.join(", ");
                    self.add(
                        place,
                        format!("`{top}` is no top-level directory of a package: {list}"),
                    );
                }
            }
        }
    }
}

/// What follows the host in a URL.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

/// What there is to say about the words of one line.
fn about_line(words: &[Word]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (position, word) in words.iter().enumerate() {
        let text = word.text.as_str();
        let arguments = || {
            let rest = words[position + 1..].iter();
            rest.take_while(|word| !word.command)
                .map(|word| word.text.as_str())
        };
        if word.command {
            remarks.extend(about_command(text, &arguments().collect::<Vec<_>>()));
        }
        let about = if text.contains("-march=native") || text.contains("-mtune=native") {
            Some("makes an output for the builder's processor alone")
        } else if text.starts_with("/proc/cpuinfo") || text.starts_with("/proc/meminfo") {
            Some("says something else on another machine")
        } else if text == "/destdir" || text.starts_with("/destdir/") {
            Some("is `$DESTDIR`: say so")
        } else if text == "/home/build" || text.starts_with("/home/build/") {
            Some("is `$HOME`: say so")
        } else if matches!(text, "$RANDOM" | "${RANDOM}") {
            Some("makes an output that nobody can make again")
        } else {
            None
        };
        remarks.extend(about.map(|about| format!("`{text}` {about}")));
    }
    remarks
}

fn about_command(command: &str, arguments: &[&str]) -> Option<String> {
    let flag = |letter: char| {
        let flags = arguments
            .iter()
            .filter(|a| a.starts_with('-') && !a.starts_with("--"));
        flags.into_iter().any(|flags| flags.contains(letter))
    };
    let about = match command {
        "date"
            if arguments
                .iter()
                .any(|a| a.starts_with("@") || a.contains("EPOCH")) =>
        {
            return None;
        }
        command if UNSTEADY.contains(&command) => {
            "says something else on another day or machine: keep it out of the output"
        }
        "uname" if "narv".chars().any(flag) => {
            "says something else on another machine: keep it out of the output"
        }
        command if NETWORK.contains(&command) => {
            "finds no network in a build: name a source in `fetch`"
        }
        command if OWNERS.contains(&command) => {
            "is in vain: the builder is one user, and owners are not kept"
        }
        "make" if arguments.iter().any(|a| a.starts_with("-j")) => "has its `-j` from MAKEFLAGS",
        "gzip" if !flag('n') && !flag('d') && !arguments.contains(&"--no-name") => {
            "keeps the time unless `-n` is given"
        }
        _ => return None,
    };
    Some(format!("`{command}` {about}"))
}

/// The directories directly below `$DESTDIR` that a line names.
fn tops(words: &[Word]) -> Vec<String> {
    let below = |word: &Word| {
        let text = word.text.replace("${DESTDIR}", "$DESTDIR");
        let rest = text
            .split_once("$DESTDIR/")?
            .1
            .trim_start_matches('/')
            .to_owned();
        let top = rest.split('/').next()?.to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (!top.is_empty() && top.chars().all(plain)).then_some(top)
    };
    words.iter().filter_map(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{FileBytes, FileEntry, PackageFiles};
    use crate::testing::name;

    fn good() -> PackageFiles {
        let script = |text: &str| {
            Some(FileBytes {
                executable: true,
                bytes: text.as_bytes().to_vec(),
            })
        };
        let digest = base::Sha256::of(b"foo");
        PackageFiles {
            build: script(
                "#!/bin/sh\n# Not for date or curl.\nset -eu\ntar -xf foo-*.tar.gz\npatch -p1 <../fix.patch\nmake install\nrm -r \"$DESTDIR/share/info\"\n",
            ),
            build_deps: Some(b"../dash\n../make\n".to_vec()),
            fetch: Some(
                format!("url: https://a.org/foo-1.tar.gz\nurl: mirror://gnu/foo/foo-1.tar.gz\nsha256: {digest}\n")
                    .into(),
            ),
            files: vec![FileEntry::regular("fix.patch", false, b"")],
            check: script("#!/bin/sh\nset -eu\nfoo\n"),
            ..PackageFiles::default()
        }
    }

    fn remarks(change: impl FnOnce(&mut PackageFiles)) -> Vec<String> {
        let mut files = good();
        change(&mut files);
        let recipe = Recipe::parse(&name("foo"), files).unwrap();
        let remarks = lint(&recipe, &["bin", "share"]);
        remarks.iter().map(ToString::to_string).collect()
    }

    fn of_line(line: &str) -> Vec<String> {
        remarks(|files| {
            let build = files.build.as_mut().unwrap();
            build.bytes.extend_from_slice(line.as_bytes());
        })
    }

    #[test]
    fn there_is_nothing_to_say_about_a_good_recipe() {
        assert_eq!(remarks(|_| ()), [""; 0]);
    }

    #[test]
    fn what_is_missing_or_unused_is_named_with_its_place() {
        assert_eq!(
            remarks(|f| f.check = None),
            ["pkg/foo: has no `check`: nobody will notice when it stops to work"]
        );
        assert_eq!(
            remarks(|f| f.build_deps = Some(b"../make\n../dash\n".to_vec())),
            ["pkg/foo/build-deps:2: `dash` stands behind `make`: sort the list"]
        );
        assert_eq!(
            remarks(|f| f.files.push(FileEntry::regular("old.patch", false, b""))),
            ["pkg/foo/files/old.patch: `build` does not mention it"]
        );
        let digest = base::Sha256::of(b"foo");
        assert_eq!(
            remarks(|f| f.fetch =
                Some(format!("url: https://a.org/latest.zip\nsha256: {digest}").into())),
            [
                "pkg/foo/fetch:2: there is one way only to `latest.zip`: name a second `url:`, or a mirror",
                "pkg/foo/fetch:2: `https://a.org/latest.zip` names no version: it will be another file one day",
                "pkg/foo/fetch:2: `build` does not mention `latest.zip`"
            ]
        );
    }

    #[test]
    fn a_script_that_goes_on_is_suspicious() {
        let found = remarks(|f| f.check.as_mut().unwrap().bytes = b"#!/bin/sh\nfoo\n".to_vec());
        assert_eq!(
            found,
            ["pkg/foo/check: goes on after a command that failed: begin with `set -eu`"]
        );
    }

    #[test]
    fn what_differs_between_machines_is_pointed_at() {
        let cases = [
            ("echo $(date) >x", "`date` says something else"),
            ("cp x y; hostname >z", "`hostname` says something else"),
            ("uname -r >z", "`uname` says something else"),
            (
                "./configure CFLAGS='-O2 -march=native'",
                "`CFLAGS=-O2 -march=native` makes",
            ),
            (
                "if grep -q sse /proc/cpuinfo; then :; fi",
                "`/proc/cpuinfo` says",
            ),
            ("curl -O x", "`curl` finds no network"),
            ("make -j4", "`make` has its `-j`"),
            ("gzip -9 x", "`gzip` keeps the time"),
            ("sudo make install", "`sudo` is in vain"),
            ("cp x /destdir/bin", "`/destdir/bin` is `$DESTDIR`"),
            (
                "mkdir -p \"$DESTDIR/opt/x\" \"${DESTDIR}/bin\"",
                "`opt` is no top-level directory",
            ),
        ];
        for (line, start) in cases {
            let found = of_line(line);
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            let expected = format!("pkg/foo/build:8: {start}");
            assert!(found[0].starts_with(&expected), "{}", found[0]);
        }
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        let harmless = [
            "./configure --disable-date --without-git",
            "date -u -d \"@$SOURCE_DATE_EPOCH\" +%Y",
            "gzip -9n x",
            "gzip -dc x",
            "uname -m",
            "# curl would be wrong here",
            "mkdir -p \"$DESTDIR/$name\" \"$DESTDIR\"",
            "echo 'run make -j4'",
        ];
        for line in harmless {
            assert_eq!(of_line(line), [""; 0], "{line}");
        }
    }
}
