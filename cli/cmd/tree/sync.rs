//! `p2pkgs tree sync`

use std::path::PathBuf;

use base::PackageName;
use node::ContentPath;
use serde::Serialize;
use store::substitute::Progress;
use store::{ProvideOrigin, Store};
use trust::{Head, HeadKind, News, NotNext, SignedHead};

use crate::bench::unix_secs;
use crate::context::Context;
use crate::error::{CmdResult, Exit, Failure};
use crate::heads::{self, DEFAULT_TREE, Folder, Followed, HeadSource, Memory, check_name, signers};
use crate::network::Remote;
use crate::units;
use crate::watch::Watch;
use crate::witness;

#[derive(Debug, clap::Args)]
pub struct SyncArgs {
    /// Where it comes from: ipns://NAME, ipfs://CID, https://… or file:///…
    #[arg(value_name = "URL")]
    source: Option<String>,
    /// Where it goes: a folder that is empty, does not exist yet, or holds this tree
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Who must sign: a key, or a rule as for `key policy` [default: one of your own keys]
    #[arg(long, value_name = "RULE")]
    signers: Option<String>,
    /// What the tree is called
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TREE)]
    name: PackageName,
    /// Replace the tree even if somebody has changed recipes in it; the changes are lost
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Told {
    name: String,
    revision: u64,
    expires_unix_secs: u64,
    root: String,
    signers: Vec<String>,
    into: String,
    is_new: bool,
}

pub(super) fn run(context: &Context, args: &SyncArgs) -> CmdResult {
    let home = context.home()?;
    let memory = Memory::of(home, HeadKind::Tree, &args.name);
    let _lock = memory.lock(home)?;
    let followed = followed(&memory, args)?;
    let folder = folder(&followed, args)?;
    let syncing = Syncing {
        context,
        name: &args.name,
        memory,
        store: context.store()?.holding()?,
        remote: Remote::new(context)?,
    };
    let doing = |failure: Failure| match failure.exit() {
        Exit::Interrupted => Failure::interrupted(),
        _ => failure.context(format!("cannot sync the tree `{}`", args.name)),
    };
    let (signed, is_new) = syncing.run(followed, &folder, args.force).map_err(doing)?;
    tell(context, &signed, &folder, is_new)
}

/// What was said before, as far as it is not said anew.
fn followed(memory: &Memory, args: &SyncArgs) -> CmdResult<Followed> {
    let before = memory.followed()?;
    let into = args.into.as_ref().map(std::path::absolute).transpose()?;
    Ok(Followed {
        source: args.source.clone().or(before.source),
        into: into.or(before.into),
        signers: args.signers.clone().or(before.signers),
        carrier: before.carrier,
    })
}

fn folder(followed: &Followed, args: &SyncArgs) -> CmdResult<Folder> {
    let into = followed.into.as_ref().ok_or_else(|| {
        Failure::usage(format!(
            "nobody said yet where the tree `{}` goes",
            args.name
        ))
        .hint("`--into DIR` names a folder")
    })?;
    Folder::open(into, &args.name)
}

/// One sync.
struct Syncing<'a> {
    context: &'a Context,
    name: &'a PackageName,
    memory: Memory,
    store: Store,
    remote: Remote,
}

impl Syncing<'_> {
    /// Gets head and tree, and puts the tree into its folder; the head, and whether it brought anything.
    fn run(
        &self,
        mut followed: Followed,
        folder: &Folder,
        force: bool,
    ) -> CmdResult<(SignedHead, bool)> {
        let context = self.context;
        let url = followed.source.as_deref().ok_or_else(|| {
            Failure::usage("nobody said yet where it comes from")
                .hint("`p2pkgs tree sync ipns://NAME --into DIR` says so")
        })?;
        let rule = followed.signers.as_deref().unwrap_or(signers::OWN);
        let policy = signers::policy(context, rule)?;
        let watch = Watch::new(&context.ui, &context.interrupt);
        let progress = watch.transfer(format!("fetching the tree {}", self.name));
        let source = HeadSource::parse(url)?;
        let source = source.settled(&self.remote, &self.store, &progress)?;
        let signed = source.head(&self.remote, &self.store, &progress)?;
        check_name(signed.head(), self.name)?;
        signers::check(&policy, rule, &signed)?;
        self.news(&signed)?;
        let is_by_right = |seen: &SignedHead| signers::check(&policy, rule, seen).is_ok();
        let (signed, source) = self.witnessed(signed, source, &is_by_right, &progress)?;
        let (head, news) = (signed.head(), self.news(&signed)?);
        self.warn_if_stale(head);
        if folder.is_changed() && !folder.holds(&head.root) && !force {
            let message = format!("recipes in `{}` were changed", folder.path().display());
            return Err(Failure::new(Exit::Other, message)
                .hint("copy what you need, then replace them with `p2pkgs tree sync --force`"));
        }
        if news == News::Same && folder.holds(&head.root) {
            // One that was killed may have got this far and no further.
            folder.mark(self.name, &[head.root])?;
            folder.clear();
            self.memory.follow(&followed)?;
            return Ok((signed, false));
        }
        let scratch = context.home()?.path("scratch");
        source.tree(&head.root, &self.remote, &self.store, &scratch, &progress)?;
        drop(progress);
        let beside = folder.beside()?;
        let kept = heads::place(&self.store, &head.root, &beside).and_then(|_| {
            // From here on nothing older is taken, whatever happens to this process.
            self.memory.remember(&signed)?;
            let fetched = ProvideOrigin::Fetched;
            let carrier = heads::adopt(&self.store, &scratch, &signed, fetched)?;
            followed.carrier = Some(carrier);
            self.memory.follow(&followed)?;
            folder.exchange(self.name, &head.root)
        });
        folder.clear();
        kept.map(|()| (signed, true))
    }

    /// Compares the head with those that peers have seen, as far as the right people signed these. What peers have of a later
    /// revision is taken in place of what the source hands out, if they give its tree.
    ///
    /// # Errors
    /// Exit code 4 when one is of the same revision and has another root; both are kept as a proof.
    fn witnessed(
        &self,
        got: SignedHead,
        source: HeadSource,
        is_by_right: &dyn Fn(&SignedHead) -> bool,
        progress: &dyn Progress,
    ) -> CmdResult<(SignedHead, HeadSource)> {
        let Some(client) = self.remote.client()? else {
            return Ok((got, source));
        };
        let mut newest = None;
        for (peer, seen) in witness::tree_heads_seen(client, self.name, progress) {
            if !is_by_right(&seen) {
                continue;
            }
            match seen.head().follows(Some(got.head())) {
                Err(why @ NotNext::Contradicted { .. }) => {
                    let failure = Failure::from(why).exit_with(Exit::Mismatch);
                    let failure = failure.context(format!("peer {peer} has seen another tree"));
                    return Err(self.not_next(failure, why, &seen, &got));
                }
                Ok(News::Newer) => {
                    let revision = |seen: &(_, SignedHead)| seen.1.head().revision;
                    let is_newest = newest.as_ref().map(revision) < Some(seen.head().revision);
                    if is_newest {
                        newest = Some((peer, seen));
                    }
                }
                _ => {}
            }
        }
        let Some((peer, seen)) = newest else {
            return Ok((got, source));
        };
        let (ours, theirs) = (got.head().revision, seen.head().revision);
        self.context.ui.warn(format!(
            "the source hands out revision {ours} of `{}`, and peer {peer} has seen revision {theirs}",
            self.name
        ));
        // It must follow what was seen here, too, and be there.
        self.news(&seen)?;
        let from_peers = HeadSource::Path(ContentPath::of(seen.head().root));
        let scratch = self.context.home()?.path("scratch");
        match from_peers.tree(
            &seen.head().root,
            &self.remote,
            &self.store,
            &scratch,
            progress,
        ) {
            Ok(()) => Ok((seen, from_peers)),
            Err(failure) if failure.exit() == Exit::Interrupted => Err(failure),
            Err(failure) => {
                let message = failure.context("its tree cannot be had").message();
                self.context.ui.warn(message);
                Ok((got, source))
            }
        }
    }

    /// What the head is to who has seen the highest one before. Two trees of one revision are kept as a proof.
    fn news(&self, signed: &SignedHead) -> CmdResult<News> {
        let seen = self.memory.head()?;
        let next = signed.head().follows(seen.as_ref().map(SignedHead::head));
        next.map_err(|error| {
            let failure = Failure::from(error).exit_with(Exit::Mismatch);
            match seen {
                Some(seen) => self.not_next(failure, error, &seen, signed),
                None => failure,
            }
        })
    }

    fn not_next(
        &self,
        failure: Failure,
        why: NotNext,
        seen: &SignedHead,
        got: &SignedHead,
    ) -> Failure {
        let mut lines = vec![heads::in_words(seen), heads::in_words(got)];
        if !matches!(why, NotNext::Contradicted { .. }) {
            return failure.detail(lines).hint(format!(
                "the source hands out an old tree; if its makers began anew, `p2pkgs tree forget {}`",
                self.name
            ));
        }
        match self.memory.keep_proof([seen, got]) {
            Ok([a, b]) => lines.push(format!("kept in `{}` and `{}`", a.display(), b.display())),
            Err(error) => lines.push(error.message()),
        }
        failure.detail(lines)
    }

    fn warn_if_stale(&self, head: &Head) {
        if head.stale_secs(unix_secs()).is_some() {
            let (name, revision) = (self.name, head.revision);
            let day = heads::last_day(head.expires_unix_secs);
            self.context.ui.warn(format!(
                "revision {revision} of `{name}` has expired, its last day was {day}: it is published no more, or newer ones are kept from you"
            ));
        }
    }
}

fn tell(context: &Context, signed: &SignedHead, folder: &Folder, is_new: bool) -> CmdResult {
    let head = signed.head();
    let what = if is_new {
        "is here"
    } else {
        "was here already"
    };
    context.ui.status(format!(
        "revision {} of `{}` {what}, {}, holds until {}",
        head.revision,
        head.name,
        units::count(signed.signers().count(), "signature"),
        heads::last_day(head.expires_unix_secs)
    ));
    if !context.ui.json() {
        return context.ui.data(folder.path().display());
    }
    context.ui.json_data(&Told {
        name: head.name.to_string(),
        revision: head.revision,
        expires_unix_secs: head.expires_unix_secs,
        root: head.root.to_string(),
        signers: signed.signers().map(ToString::to_string).collect(),
        into: folder.path().display().to_string(),
        is_new,
    })
}
