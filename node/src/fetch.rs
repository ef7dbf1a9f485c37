//! Getting one file: a DAG is walked in file order, its blocks come from whoever has them, its bytes go to the store.
//!
//! This runs on the thread of whoever needs the file (a builder's worker, a command), not in the runtime: writing and
//! hashing may take as long as they take without stopping the network, and what the thread has not taken yet waits in a
//! channel. Three things bound that channel and with it the memory of a fetch:
//!
//! * The **walk** wants at most a window's worth of blocks beyond what has been written: wanted, under way, or received
//!   out of order. The window is counted in bytes, 32 MiB by default; blocks of an unknown DAG are taken for 1 MiB until
//!   the first leaves show their size. A fast line needs rate × round trip in flight (100 MB/s at 150 ms: 15 MB), and the
//!   look-ahead also covers what one slow peer delays.
//! * The **exchange** spreads the wants over the peers by their measured rates, and gives the wants of a peer that stalls,
//!   leaves, or has not what it promised to another. A dead peer costs speed, never the file.
//! * Blocks are **verified** when they are read from the connection, so a wrong block never gets here. The assembled file
//!   is checked once more, by its plain SHA-256 and size: that is what tells a DAG of other content from the right one.
//!
//! **No block is fetched twice.** Each is written to a partial of the store when it comes, in whatever order, and what is
//! wanted is looked for there first: so a fetch that was killed goes on where it was, and what has come is served to
//! others meanwhile.
//!
//! A fetch ends when the file is complete, when nobody has a block, or when its pace breaks a deadline: first byte, next
//! byte, minimum rate, total.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base::{Block, Cid, Multihash};
use libp2p::PeerId;
use store::car::CarError;
use store::dag::{self, DagError, Leaf, Taken, Walk, WalkLimits};
use store::substitute::{Asked, FetchError, Fetched, Origin, Progress};
use store::{Blob, Expected, Partial, Store, StoreError};
use tokio::sync::mpsc;

use crate::SESSION_WANTS_MAX;
use crate::address::Reach;
use crate::client::Client;
use crate::command::{Command, OpenedSession, SessionEvent};
use crate::error::ClientError;
use crate::pace::Pace;

/// How long a fetch waits before it looks for new providers and for a wish to stop.
const SLICE: Duration = Duration::from_millis(100);
/// Size taken for the blocks of a DAG before the first leaf: that of our own profile.
const BLOCK_BYTES_FIRST: u64 = 1 << 20;
/// Smallest size taken for blocks, so that a DAG of tiny ones does not make the window a million entries.
const BLOCK_BYTES_MIN: u64 = 32 << 10;
/// Links followed in one DAG: a file of the largest size we take, in the smallest chunks anybody uses by default.
const NODES_MAX: u64 = 4 << 20;
/// Depth of a DAG: 1024 links a node hold 16 GiB in three levels; 174 links, as in old ones, in four.
const DEPTH_MAX: usize = 16;

/// Who may hold the file, as that becomes known while the fetch runs.
pub(crate) trait Holders {
    /// Peers that were not named before.
    fn newcomers(&mut self) -> Vec<PeerId>;

    /// Whether any may still come: "nobody has it" is not the last word then.
    fn may_bring_more(&self) -> bool;
}

/// Nobody but those named at the start.
pub(crate) struct NobodyElse;

impl Holders for NobodyElse {
    fn newcomers(&mut self) -> Vec<PeerId> {
        Vec::new()
    }

    fn may_bring_more(&self) -> bool {
        false
    }
}

/// What to fetch and what it must turn out to be.
pub(crate) struct Plan<'a> {
    /// Root of the DAG.
    pub(crate) root: Cid,
    /// Peers that hold it, as far as is known.
    pub(crate) providers: Vec<PeerId>,
    /// What the file must be.
    pub(crate) expected: &'a Expected,
    /// Length that somebody named without proof; a DAG of another length is not it.
    pub(crate) claimed_size: Option<u64>,
}

/// One fetch.
pub(crate) struct Fetch<'a> {
    client: &'a Client,
    store: &'a Store,
    progress: &'a dyn Progress,
    session: OpenedSession,
    pace: Pace,
    received: BTreeMap<PeerId, (Reach, u64)>,
    /// Bytes that were here already.
    here: u64,
    /// Blocks that nobody known so far has: wanted again from who comes next.
    missing: Vec<Cid>,
    asked: Asked,
}

/// Gets the file below `root` by its CID alone.
pub(crate) fn fetch_cid(
    client: &Client,
    root: Cid,
    providers: &[PeerId],
    store: &Store,
    progress: &dyn Progress,
) -> Result<Fetched, FetchError> {
    if let Some(blob) = store.blob_by_root(&root)? {
        return Ok(local(blob));
    }
    if dag::inline_block(&root).is_some() {
        return of_itself(&root, store);
    }
    let expected = Expected::anything();
    let providers = providers.to_vec();
    let plan = Plan {
        root,
        providers,
        expected: &expected,
        claimed_size: None,
    };
    fetch(client, &plan, store, progress, &mut NobodyElse)
}

/// The file whose root has it inside, or links to what is here: there is no such block to ask anybody for.
fn of_itself(root: &Cid, store: &Store) -> Result<Fetched, FetchError> {
    let blob = store.blob_of_blocks(root).map_err(|error| match error {
        CarError::Store(error) => error.into(),
        error => FetchError::Invalid {
            expected: format!("a file at {root}"),
            got: error.to_string(),
            from: Origin::Local,
        },
    })?;
    let asked = Asked::default();
    blob.map(local).ok_or(FetchError::Missing { asked })
}

/// Something that was here already.
pub(crate) fn local(blob: Blob) -> Fetched {
    let received = vec![(Origin::Local, blob.size)];
    Fetched {
        blob,
        received,
        asked: Asked::default(),
    }
}

/// Carries out a plan.
pub(crate) fn fetch(
    client: &Client,
    plan: &Plan<'_>,
    store: &Store,
    progress: &dyn Progress,
    holders: &mut dyn Holders,
) -> Result<Fetched, FetchError> {
    let runtime = &client.shared().runtime;
    let session = runtime
        .block_on(client.open_session(plan.root, plan.providers.clone()))
        .map_err(stopped)?;
    let mut fetch = Fetch {
        client,
        store,
        progress,
        session,
        pace: Pace::new(client.shared().deadlines.clone(), Instant::now()),
        received: BTreeMap::new(),
        here: 0,
        missing: Vec::new(),
        asked: Asked::default(),
    };
    let result = fetch.run(plan, holders);
    client.try_send(Command::CloseSession {
        session: fetch.session.id,
    });
    let blob = result?;
    let mut received = fetch.origins();
    if fetch.here > 0 {
        received.push((Origin::Local, fetch.here));
    }
    Ok(Fetched {
        blob,
        received,
        asked: fetch.asked,
    })
}

impl Fetch<'_> {
    fn run(&mut self, plan: &Plan<'_>, holders: &mut dyn Holders) -> Result<Blob, FetchError> {
        let mut partial = self.store.partial(&plan.root)?;
        if let Err(error) = self.fill(plan, holders, &mut partial) {
            if matches!(error, FetchError::Invalid { .. }) {
                // It would not be right the next time either.
                partial.discard()?;
            }
            return Err(error);
        }
        let blob = partial.finish(plan.expected).map_err(|error| match error {
            StoreError::Mismatch { expected, got, .. } => self.invalid(expected, got),
            error => error.into(),
        })?;
        // A single block can be served only now.
        self.stored(Multihash::of(&plan.root).into_iter().collect())?;
        Ok(blob)
    }

    /// Gets what is missing of the file.
    fn fill(
        &mut self,
        plan: &Plan<'_>,
        holders: &mut dyn Holders,
        partial: &mut Partial,
    ) -> Result<(), FetchError> {
        // Only a size that is signed is worth refusing a fetch for lack of space.
        if let Some(size) = plan.expected.size {
            partial.reserve(size)?;
        }
        let mut window = Window::new(self.client.shared().limits.fetch_window_bytes);
        let mut walk =
            Walk::new(plan.root, self.limits(plan)).map_err(|e| self.bad_dag(plan, &e))?;
        loop {
            self.write_ready(plan, &mut walk, partial, &mut window)?;
            if walk.is_done() {
                return Ok(());
            }
            let wanted = walk.wants(window.blocks());
            let asked = wanted.len();
            let wanted = self.take_what_is_here(plan, &mut walk, partial, wanted)?;
            let was_here = wanted.len() < asked;
            self.send_wants(wanted)?;
            if !was_here {
                let event = self.next_event(holders)?;
                self.take(plan, &mut walk, partial, event)?;
                // Whatever else has come meanwhile, before what is in order is looked at.
                while let Ok(event) = self.session.events.try_recv() {
                    self.take(plan, &mut walk, partial, event)?;
                }
            }
            let stored = partial.note()?;
            self.stored(stored)?;
        }
    }

    /// Takes those blocks that need not be fetched; returns the others.
    fn take_what_is_here(
        &mut self,
        plan: &Plan<'_>,
        walk: &mut Walk,
        partial: &mut Partial,
        wanted: Vec<Cid>,
    ) -> Result<Vec<Cid>, FetchError> {
        let mut elsewhere = Vec::with_capacity(wanted.len());
        for cid in wanted {
            let found = match Multihash::of(&cid) {
                Ok(hash) => partial.find(&hash)?,
                Err(_) => None,
            };
            let Some(block) = found else {
                elsewhere.push(cid);
                continue;
            };
            if self.progress.cancelled() {
                return Err(FetchError::Cancelled);
            }
            self.here += block.len() as u64;
            self.keep(plan, walk, partial, &block)?;
        }
        Ok(elsewhere)
    }

    fn limits(&self, plan: &Plan<'_>) -> WalkLimits {
        let claimed = plan.expected.size.or(plan.claimed_size);
        let most = self.client.shared().limits.file_bytes_max;
        let bytes_max = claimed.map_or(most, |size| size.min(most));
        WalkLimits {
            bytes_max,
            nodes_max: NODES_MAX,
            depth_max: DEPTH_MAX,
        }
    }

    /// Writes what has come in order.
    fn write_ready(
        &mut self,
        plan: &Plan<'_>,
        walk: &mut Walk,
        partial: &mut Partial,
        window: &mut Window,
    ) -> Result<(), FetchError> {
        while let Some(leaf) = walk.next_bytes().map_err(|e| self.bad_dag(plan, &e))? {
            self.check_size(plan, walk)?;
            match &leaf {
                Leaf::Block(block) => partial.write_leaf(block)?,
                Leaf::Bytes(bytes) => partial.append(bytes)?,
            }
            let length = leaf.bytes().len() as u64;
            window.saw_leaf(length);
            self.progress.bytes(length, walk.declared_size());
        }
        Ok(())
    }

    fn send_wants(&self, cids: Vec<Cid>) -> Result<(), FetchError> {
        if cids.is_empty() {
            return Ok(());
        }
        self.send(Command::Want {
            session: self.session.id,
            cids,
        })
    }

    /// Lets others have these blocks.
    fn stored(&self, blocks: Vec<Multihash>) -> Result<(), FetchError> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.send(Command::Stored { blocks })
    }

    fn send(&self, command: Command) -> Result<(), FetchError> {
        self.client
            .shared()
            .runtime
            .block_on(self.client.send(command))
            .map_err(stopped)
    }

    /// Waits for something to happen, looking up from time to time.
    fn next_event(&mut self, holders: &mut dyn Holders) -> Result<SessionEvent, FetchError> {
        loop {
            if self.progress.cancelled() {
                return Err(FetchError::Cancelled);
            }
            self.meet(holders)?;
            let now = Instant::now();
            if let Err(late) = self.pace.check(now) {
                tracing::info!(?late, "fetch is overdue");
                return Err(FetchError::TimedOut { asked: self.asked });
            }
            let wait = self.pace.patience(now).min(SLICE);
            match self.recv(wait) {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => return Err(stopped(ClientError::Stopped)),
                Err(_) => {}
            }
        }
    }

    /// Turns to new holders, or gives up when there are none and something is missing.
    fn meet(&mut self, holders: &mut dyn Holders) -> Result<(), FetchError> {
        // In this order: who comes last has been counted before the search is seen to have ended.
        let more = holders.may_bring_more();
        let providers = holders.newcomers();
        if !providers.is_empty() {
            self.asked.providers += providers.len() as u32;
            self.send(Command::AddProviders {
                session: self.session.id,
                providers,
            })?;
            let missing = std::mem::take(&mut self.missing);
            return self.send_wants(missing);
        }
        match self.missing.first() {
            Some(cid) if !more => {
                tracing::info!(%cid, "nobody has this block");
                Err(FetchError::Missing { asked: self.asked })
            }
            _ => Ok(()),
        }
    }

    fn recv(
        &mut self,
        wait: Duration,
    ) -> Result<Option<SessionEvent>, tokio::time::error::Elapsed> {
        // The usual case under load costs no timer.
        if let Ok(event) = self.session.events.try_recv() {
            return Ok(Some(event));
        }
        let events: &mut mpsc::Receiver<SessionEvent> = &mut self.session.events;
        let runtime = &self.client.shared().runtime;
        runtime.block_on(async { tokio::time::timeout(wait, events.recv()).await })
    }

    fn take(
        &mut self,
        plan: &Plan<'_>,
        walk: &mut Walk,
        partial: &mut Partial,
        event: SessionEvent,
    ) -> Result<(), FetchError> {
        match event {
            SessionEvent::Block { block, from } => {
                if let Some((peer, reach)) = from {
                    let share = self.received.entry(peer).or_insert((reach, 0));
                    share.1 += block.len() as u64;
                }
                self.keep(plan, walk, partial, &block)
            }
            SessionEvent::Missing { cid } => {
                self.missing.push(cid);
                Ok(())
            }
            SessionEvent::Searched(asked) => {
                count_search(&mut self.asked, asked);
                Ok(())
            }
        }
    }

    /// Takes a block that has come, from wherever.
    fn keep(
        &mut self,
        plan: &Plan<'_>,
        walk: &mut Walk,
        partial: &mut Partial,
        block: &Block,
    ) -> Result<(), FetchError> {
        self.pace.progress(block.len() as u64, Instant::now());
        match walk.handle_block(block) {
            Ok(Taken::Leaf { offset }) => partial.keep_leaf(block, offset)?,
            Ok(Taken::Node) => partial.keep_node(block)?,
            Ok(Taken::Unwanted) => {}
            Err(error) => return Err(self.bad_dag(plan, &error)),
        }
        Ok(())
    }

    /// A holder that cannot even tell the length of its own DAG is not worth the bytes.
    fn check_size(&self, plan: &Plan<'_>, walk: &Walk) -> Result<(), FetchError> {
        match (walk.declared_size(), plan.claimed_size) {
            (Some(declared), Some(claimed)) if declared != claimed => {
                let (expected, got) = (format!("{claimed} bytes"), format!("{declared} bytes"));
                Err(self.invalid(expected, got))
            }
            _ => Ok(()),
        }
    }

    fn bad_dag(&self, plan: &Plan<'_>, error: &DagError) -> FetchError {
        self.invalid(format!("a file at {}", plan.root), error.to_string())
    }

    fn invalid(&self, expected: String, got: String) -> FetchError {
        let most = self.origins().into_iter().max_by_key(|(_, bytes)| *bytes);
        let from = most.map_or(Origin::Local, |(origin, _)| origin);
        FetchError::Invalid {
            expected,
            got,
            from,
        }
    }

    fn origins(&self) -> Vec<(Origin, u64)> {
        let origin = |(peer, (reach, bytes)): (&PeerId, &(Reach, u64))| {
            let name = peer.to_string();
            let near = *reach == Reach::Near;
            (
                if near {
                    Origin::LanPeer(name)
                } else {
                    Origin::Peer(name)
                },
                *bytes,
            )
        };
        self.received.iter().map(origin).collect()
    }
}

/// Adds a search of a session to those before: it asked further nodes, and knows all the providers that they knew.
pub(crate) fn count_search(asked: &mut Asked, search: Asked) {
    *asked = Asked {
        dht_nodes: asked.dht_nodes + search.dht_nodes,
        providers: asked.providers.max(search.providers),
        relayed: asked.relayed.max(search.relayed),
        ..search
    };
}

/// The node is gone, or whoever fetches does not want to wait for it.
pub(crate) fn stopped(error: ClientError) -> FetchError {
    match error {
        ClientError::Cancelled => FetchError::Cancelled,
        error => FetchError::Failed {
            source: error.into(),
        },
    }
}

/// The look-ahead in blocks that a number of bytes allows.
struct Window {
    bytes: u64,
    leaf_bytes: u64,
}

impl Window {
    fn new(bytes: u64) -> Self {
        Self {
            bytes,
            leaf_bytes: BLOCK_BYTES_FIRST,
        }
    }

    /// The largest leaf seen decides, once there was one: the last of a file may be short.
    fn saw_leaf(&mut self, bytes: u64) {
        let first = self.leaf_bytes == BLOCK_BYTES_FIRST;
        let bytes = bytes.max(BLOCK_BYTES_MIN);
        self.leaf_bytes = if first {
            bytes
        } else {
            self.leaf_bytes.max(bytes)
        };
    }

    fn blocks(&self) -> usize {
        let blocks = (self.bytes / self.leaf_bytes).max(2);
        usize::try_from(blocks)
            .unwrap_or(usize::MAX)
            .min(SESSION_WANTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_size_of_the_leaves() {
        let mut window = Window::new(32 << 20);
        assert_eq!(window.blocks(), 32);
        window.saw_leaf(256 << 10);
        assert_eq!(window.blocks(), 128);
        window.saw_leaf(100);
        assert_eq!(window.blocks(), 128);
        let mut tiny = Window::new(1 << 40);
        tiny.saw_leaf(1);
        assert_eq!(tiny.blocks(), SESSION_WANTS_MAX);
        assert_eq!(Window::new(0).blocks(), 2);
    }
}
