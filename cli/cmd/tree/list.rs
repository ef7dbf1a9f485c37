//! `p2pkgs tree list`

use serde::Serialize;
use trust::HeadKind;

use crate::bench::unix_secs;
use crate::context::Context;
use crate::error::CmdResult;
use crate::heads::{self, Memory};
use crate::sanitize;

#[derive(Serialize)]
struct Told {
    name: String,
    revision: u64,
    expires_unix_secs: u64,
    root: String,
    signers: Vec<String>,
    source: Option<String>,
    into: Option<String>,
}

pub(super) fn run(context: &Context) -> CmdResult {
    let mut trees = Vec::new();
    for (name, memory) in Memory::all(context.home()?, HeadKind::Tree)? {
        let followed = memory.followed()?;
        // What was only signed here is nobody else's word yet.
        let Some(signed) = memory
            .head()?
            .map_or_else(|| memory.signed(), |head| Ok(Some(head)))?
        else {
            continue;
        };
        let head = signed.head();
        if head.stale_secs(unix_secs()).is_some() {
            let day = heads::last_day(head.expires_unix_secs);
            context
                .ui
                .warn(format!("`{name}` has expired, its last day was {day}"));
        }
        trees.push(Told {
            name: name.to_string(),
            revision: head.revision,
            expires_unix_secs: head.expires_unix_secs,
            root: head.root.to_string(),
            signers: signed.signers().map(ToString::to_string).collect(),
            source: followed.source,
            into: followed.into.map(|path| path.display().to_string()),
        });
    }
    if context.ui.json() {
        return context.ui.json_data(&trees);
    }
    trees.iter().try_for_each(|tree| {
        let day = heads::last_day(tree.expires_unix_secs);
        let source = sanitize::line(tree.source.as_deref().unwrap_or("-"));
        let Told {
            name,
            revision,
            root,
            ..
        } = tree;
        context
            .ui
            .data(format!("{name} {revision} {day} {root} {source}"))
    })
}
