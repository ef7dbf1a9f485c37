//! Roots of content that a user names: by CID, or as a package whose output it is.

use base::{Cid, CidError, parse_cid};

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::session::{GetArgs, Session};

/// The roots of the items, in their order. Packages are fetched if they are not here, never built.
///
/// # Errors
/// When a package is unknown or nobody has it.
pub fn of(context: &Context, items: &[String]) -> CmdResult<Vec<Cid>> {
    let parse = |item: &String| parse_cid(item.strip_prefix("ipfs://").unwrap_or(item));
    for item in items {
        // A CID, and no name of a package.
        if let Err(error @ (CidError::Codec(_) | CidError::Hash(_))) = parse(item) {
            let item = crate::sanitize::line(item);
            return Err(Failure::usage(error.to_string()).context(format!("cannot use `{item}`")));
        }
    }
    let cid = |item: &String| parse(item).ok();
    let (cids, packages): (Vec<_>, Vec<_>) = items.iter().partition(|item| cid(item).is_some());
    let mut roots: Vec<_> = cids.into_iter().filter_map(cid).collect();
    if packages.is_empty() {
        return Ok(roots);
    }
    let get = GetArgs {
        jobs: None,
        substitute_only: true,
        no_substitutes: false,
    };
    let packages: Vec<_> = packages.into_iter().cloned().collect();
    let session = Session::open(context, get.jobs, &packages)?;
    let report = session.realise(&get.options(context)?)?;
    for id in session.graph.roots() {
        if let Some(realised) = report.realised.get(session.graph.name(*id)) {
            roots.push(realised.blob.root);
        }
    }
    Ok(roots)
}
