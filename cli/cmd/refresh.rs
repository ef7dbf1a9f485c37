//! `p2pkgs refresh`

use std::collections::BTreeMap;
use std::io::Read as _;

use base::PackageName;
use recipe::{Recipe, Release, SourceUrl, links};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::fetcher::WebUrls;
use crate::hands::work_off;
use crate::origins::Origins;
use crate::sanitize;

/// Listings that are read at once.
const READERS: usize = 8;
/// Longest listing that is read, in bytes; those of the largest servers have half of it.
const LISTING_BYTES_MAX: u64 = 4 << 20;

/// Tell which packages have newer releases
///
/// Reads the directories that sources lie in, on every server and mirror that a recipe names, for names of the same program
/// with a higher version; on GitHub the list of tags. Prints package, version here, newest version, and where it was seen.
/// Nothing is fetched or changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree [default: all]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
}

/// A release that is newer than a recipe's.
#[derive(Debug, Serialize)]
struct Newer {
    package: String,
    version: String,
    newest: String,
    url: String,
}

/// Where newer releases of a source would be listed, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    listing: String,
    release: Release,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let mut tree = context.tree()?;
    let names = tree.package_names_or_all(&args.packages)?;
    let graph = context.graph(&mut tree, &names)?;
    let ids = names.iter().filter_map(|name| graph.id(name));
    let places: Vec<(PackageName, Vec<Place>)> = ids
        .map(|id| (graph.name(id).clone(), places(graph.recipe(id))))
        .collect();
    let origins = Origins::open(context, Some(&tree))?;
    let listings = read_all(context, origins.web(), &places);
    if context.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    let mut unknown = 0;
    for (package, places) in &places {
        if !places
            .iter()
            .any(|place| listings.contains_key(&place.listing))
        {
            unknown += usize::from(!places.is_empty());
            continue;
        }
        if let Some(newer) = newest(package, places, &listings) {
            tell(context, &newer)?;
        }
    }
    if unknown > 0 {
        context.ui.status(format!(
            "of {unknown} of {} packages no listing could be read",
            places.len()
        ));
    }
    if listings.is_empty() && unknown > 0 {
        let message = "no server's listing could be read";
        return Err(Failure::new(Exit::Network, message));
    }
    Ok(())
}

fn tell(context: &Context, newer: &Newer) -> CmdResult {
    if context.ui.json() {
        return context.ui.json_data(newer);
    }
    let Newer {
        package,
        version,
        newest,
        url,
    } = newer;
    let line = format!("{package} {version} {newest} {url}");
    context.ui.data(sanitize::line(&line))
}

/// Where to look for newer releases of a recipe's sources.
fn places(recipe: &Recipe) -> Vec<Place> {
    let urls = recipe.sources().iter().flat_map(|source| &source.urls);
    let texts = urls.filter_map(|url| match url {
        SourceUrl::Web(_) | SourceUrl::Mirror { .. } | SourceUrl::File(_) => Some(url.to_string()),
        SourceUrl::Ipfs(_) | SourceUrl::Bootstrap(_) => None,
    });
    texts.filter_map(|url| place(&url)).collect()
}

fn place(url: &str) -> Option<Place> {
    let (folder, name) = url.rsplit_once('/')?;
    if let Some(path) = folder.strip_prefix("https://github.com/") {
        let mut parts = path.split('/');
        let (owner, project) = (parts.next()?, parts.next()?);
        // A release's files have a folder of its tag, an archive of the tag has its name.
        let tag = match (parts.next(), parts.next(), parts.next()) {
            (Some("releases"), Some("download"), Some(tag)) => format!("{tag}.tar.gz"),
            _ => name.to_owned(),
        };
        return Some(Place {
            listing: format!("https://github.com/{owner}/{project}/tags"),
            release: Release::parse(&tag)?,
        });
    }
    Some(Place {
        listing: format!("{folder}/"),
        release: Release::parse(name)?,
    })
}

/// The listings that could be read, each once.
fn read_all(
    context: &Context,
    web: &WebUrls,
    places: &[(PackageName, Vec<Place>)],
) -> BTreeMap<String, (String, String)> {
    let mut urls: Vec<_> = places
        .iter()
        .flat_map(|(_, places)| places.iter().map(|place| place.listing.as_str()))
        .collect();
    urls.sort_unstable();
    urls.dedup();
    let (interrupt, ui) = (&context.interrupt, &context.ui);
    let stop = || interrupt.is_set();
    let found = work_off(&urls, READERS, stop, |url| match read(web, url) {
        Ok(listing) => Some(((*url).to_owned(), listing)),
        Err(failure) => {
            ui.detail(failure.message());
            None
        }
    });
    found.into_iter().flatten().collect()
}

/// The URL that answered, and what it says.
fn read(web: &WebUrls, url: &str) -> CmdResult<(String, String)> {
    let page = web
        .page(url)
        .map_err(|error| Failure::from(error).context(format!("cannot read `{url}`")))?;
    let mut bytes = Vec::new();
    page.body.take(LISTING_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok((page.url, String::from_utf8_lossy(&bytes).into_owned()))
}

/// The newest of what all listings have.
fn newest(
    package: &PackageName,
    places: &[Place],
    listings: &BTreeMap<String, (String, String)>,
) -> Option<Newer> {
    let mut best: Option<(Release, Newer)> = None;
    for Place { listing, release } in places {
        let Some((url, text)) = listings.get(listing) else {
            continue;
        };
        let Some((found, name)) = release.newest(links(text)) else {
            continue;
        };
        if best
            .as_ref()
            .is_none_or(|(best, _)| found.version() > best.version())
        {
            let newer = Newer {
                package: package.to_string(),
                version: release.version().to_string(),
                newest: found.version().to_string(),
                url: format!("{}/{name}", url.trim_end_matches('/')),
            };
            best = Some((found, newer));
        }
    }
    best.map(|(_, newer)| newer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_looked_for_where_its_neighbours_are() {
        let of = |url| place(url).map(|place| (place.listing, place.release.version().to_string()));
        let expected =
            |listing: &str, version: &str| Some((listing.to_owned(), version.to_owned()));
        assert_eq!(
            of("https://ftp.gnu.org/gnu/hello/hello-2.10.tar.gz"),
            expected("https://ftp.gnu.org/gnu/hello/", "2.10")
        );
        assert_eq!(
            of("mirror://debian/pool/main/l/lua5.4/lua5.4_5.4.4.orig.tar.gz"),
            expected("mirror://debian/pool/main/l/lua5.4/", "5.4.4")
        );
        assert_eq!(
            of("https://github.com/lz4/lz4/archive/v1.9.4.tar.gz"),
            expected("https://github.com/lz4/lz4/tags", "1.9.4")
        );
        assert_eq!(
            of("https://github.com/tmux/tmux/releases/download/3.3a/tmux-3.3a.tar.gz"),
            expected("https://github.com/tmux/tmux/tags", "3.3a")
        );
        assert_eq!(of("https://example.org/latest"), None);
    }
}
