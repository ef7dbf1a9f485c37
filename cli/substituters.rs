//! Where built packages come from that are not built here: peers and package caches, asked at once.
//!
//! A cache is a directory that holds for each package its statements and an output, wherever it lies: on a web server, in
//! the file system, or in IPFS below a CID or a name.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{PkgHash, PublicKey, SignedRealisation};
use node::{ContentPath, HttpCaches};
use store::substitute::{Race, Substituter};

use crate::believing::Believer;
use crate::caches::{PathCache, Shelf, Watched, WatchedWeb, Watcher};
use crate::context::{Context, PackageNames};
use crate::error::{CmdResult, Failure};
use crate::keys;
use crate::origins::Origins;

/// Everybody who may have built packages, in the order in which they are preferred: peers, caches.
///
/// # Errors
/// When the configuration of the caches cannot be used.
pub fn open(context: &Context, origins: &Origins) -> CmdResult<Race<'static>> {
    let remote = origins.remote();
    let caches = Caches::of(context, remote.is_enabled())?;
    let watcher = |url: &str, shelf: Shelf, keeps_head: bool| -> CmdResult<Watcher> {
        let home = keeps_head.then(|| context.home()).transpose()?;
        let believer = Arc::clone(context.believer()?);
        let names = context.package_names().clone();
        let remote = Arc::clone(remote);
        Ok(Watcher::new(url, shelf, remote, believer, names, home))
    };
    let shelf = |url: &str| Shelf::web(remote.http().clone(), url);
    let mut items: Vec<Box<dyn Substituter>> = vec![Box::new(Arc::clone(remote))];
    let settled = Settled::of(context)?;
    let enough =
        move |pkghash: &PkgHash, found: &[SignedRealisation]| settled.is_settled(pkghash, found);
    if let Some(gateways) = remote.gateways() {
        let urls = gateways.urls();
        let watchers = urls.map(|url| watcher(url, shelf(url), false));
        let watchers = watchers.collect::<CmdResult<_>>()?;
        let gateways = gateways.clone().until(enough.clone());
        items.push(Box::new(Watched::new(gateways, watchers)));
    }
    if !caches.web.is_empty() {
        let web = HttpCaches::new(remote.http().clone(), &caches.web).until(enough.clone());
        let watchers = (caches.web.iter()).map(|url| Ok((url, watcher(url, shelf(url), true)?)));
        let watchers = watchers.collect::<CmdResult<_>>()?;
        items.push(Box::new(WatchedWeb::new(web, watchers)));
    }
    for (url, path) in caches.paths {
        let cache = PathCache::new(remote, context.store()?, path);
        let watcher = watcher(&url, Shelf::Path(cache.clone()), true)?;
        items.push(Box::new(Watched::new(cache, vec![watcher])));
    }
    Ok(Race::new(items, enough))
}

/// The URLs of the package caches that are no directories in IPFS. Without a network only those of this machine.
///
/// # Errors
/// When the configuration of the caches cannot be used.
pub fn web_caches(context: &Context, online: bool) -> CmdResult<Vec<String>> {
    Ok(Caches::of(context, online)?.web)
}

/// The caches that the user named, by the door that leads to them.
struct Caches {
    web: Vec<String>,
    /// As the user wrote them, and as they are read.
    paths: Vec<(String, ContentPath)>,
}

impl Caches {
    /// Without a network only directories of this machine are left.
    fn of(context: &Context, online: bool) -> CmdResult<Self> {
        let (mut web, mut paths) = (Vec::new(), Vec::new());
        for url in context.config()?.caches()?.urls {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            match scheme {
                "file" => web.push(url),
                "http" | "https" if online => web.push(url),
                "ipfs" | "ipns" if online => {
                    let path = url.parse().map_err(|error| {
                        let url = crate::sanitize::line(&url);
                        Failure::from(error).context(format!("bad package cache `{url}`"))
                    })?;
                    paths.push((url, path));
                }
                _ => {}
            }
        }
        Ok(Self { web, paths })
    }
}

/// The trust policy as a reason to stop looking.
#[derive(Clone, Debug)]
pub struct Settled {
    believer: Arc<Believer>,
    /// The user's own keys: what they signed is here and need not be looked for.
    own: BTreeSet<PublicKey>,
    /// Keys may count for some packages only.
    names: PackageNames,
}

impl Settled {
    /// The user's policy.
    ///
    /// # Errors
    /// When the policy or the own keys cannot be read.
    pub fn of(context: &Context) -> CmdResult<Self> {
        let own = keys::own_keys(context.home()?)?;
        Ok(Self {
            believer: Arc::clone(context.believer()?),
            own: own.iter().map(|own| own.key.public()).collect(),
            names: context.package_names().clone(),
        })
    }

    /// Whether a search may end before everybody was asked.
    pub fn is_settled(&self, pkghash: &PkgHash, found: &[SignedRealisation]) -> bool {
        let name = self.names.get(pkghash);
        let trust = self.believer.live().now();
        trust.is_settled(name.as_ref(), pkghash, found, &self.own)
    }
}
