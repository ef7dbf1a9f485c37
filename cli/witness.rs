//! What a home tells peers that it has seen, and what it hears from them: the heads of package trees, and what keys said of keys.
//!
//! Whoever hands out an old tree to one user, another tree to another one, or keeps a revocation from somebody, is found out when
//! these meet. A peer is believed in nothing: what it shows is signed, and is judged as if it had come from anywhere else.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{PackageName, PublicKey, Sha256, SignedRealisation};
use node::{BlockingClient, Heard, PeerId, TOPICS_MAX, Witness};
use store::substitute::Progress;
use trust::{HeadKind, KeyStatement, SignedHead, SignedKeyStatement};

use crate::believing::Believer;
use crate::heads::{Memory, read_head};
use crate::home::Home;
use crate::statements;

/// How long what was read of the home is told: heads and statements are some small files.
const FRESH: Duration = Duration::from_secs(5);
/// How long peers may take to say what they know of the keys that they brought statements of; they have just answered.
const KEYS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a sync waits for peers to say which heads they have seen. They may have to be met first.
const HEADS_PATIENCE: Duration = Duration::from_millis(1500);
/// The same for the heads of caches.
const CACHE_HEADS_PATIENCE: Duration = Duration::from_millis(500);
/// Things of one peer that are looked at: each costs the check of a signature or two.
const THINGS_OF_PEER_MAX: usize = 64;
/// Questions about keys that are remembered as put; each is a peer and a key.
const ASKED_MAX: usize = 4096;

/// The topic that is the tree or the cache of a name.
fn head_topic(kind: HeadKind, name: &PackageName) -> Sha256 {
    let kind = match kind {
        HeadKind::Tree => "tree",
        HeadKind::Cache => "cache",
    };
    Sha256::of(format!("p2pkgs witness 1: {kind} {name}").as_bytes())
}

/// The topic that is a key.
fn key_topic(key: &PublicKey) -> Sha256 {
    Sha256::of(format!("p2pkgs witness 1: key {key}").as_bytes())
}

/// Tells of what a home has seen.
#[derive(Debug)]
pub struct HomeWitness {
    home: Home,
    known: Mutex<Option<(Instant, Topics)>>,
}

type Topics = HashMap<Sha256, Vec<Vec<u8>>>;

impl HomeWitness {
    /// Of this home.
    pub fn new(home: &Home) -> Self {
        Self {
            home: home.clone(),
            known: Mutex::new(None),
        }
    }

    /// What cannot be read was not seen: a question is no place to fail.
    fn look(&self) -> Topics {
        let mut topics = Topics::new();
        for kind in [HeadKind::Tree, HeadKind::Cache] {
            for (_, memory) in Memory::all(&self.home, kind).unwrap_or_default() {
                if let Ok(Some(signed)) = memory.head() {
                    let topic = head_topic(kind, &signed.head().name);
                    topics.entry(topic).or_default().push(signed.to_bytes());
                }
            }
        }
        let mut said = statements::of_home(&self.home).unwrap_or_default();
        // What ends trust comes first, should not all of it fit.
        said.sort_by_key(|signed| match signed.statement() {
            KeyStatement::Revocation { .. } => 0,
            KeyStatement::Rotation { .. } => 1,
            KeyStatement::Delegation { .. } => 2,
        });
        let keys: HashSet<_> = said.iter().flat_map(keys_of).collect();
        for key in keys {
            let about = said.iter().filter(|signed| is_about(&said, signed, &key));
            let about = about.map(SignedKeyStatement::to_bytes).collect();
            topics.insert(key_topic(&key), about);
        }
        topics
    }
}

impl Witness for HomeWitness {
    fn about(&self, topic: &Sha256) -> Vec<Vec<u8>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |(at, _): &(Instant, Topics)| at.elapsed() < FRESH;
        if !known.as_ref().is_some_and(is_fresh) {
            *known = Some((Instant::now(), self.look()));
        }
        let topics = known.as_ref().map(|(_, topics)| topics);
        topics
            .and_then(|t| t.get(topic))
            .cloned()
            .unwrap_or_default()
    }
}

/// The keys that a statement is about.
fn keys_of(signed: &SignedKeyStatement) -> [PublicKey; 2] {
    match signed.statement() {
        KeyStatement::Delegation {
            root: a, key: b, ..
        }
        | KeyStatement::Rotation { old: a, new: b }
        | KeyStatement::Revocation { key: a, by: b } => [*a, *b],
    }
}

/// Whether a statement matters to who believes a key, or whom that key speaks for.
fn is_about(said: &[SignedKeyStatement], signed: &SignedKeyStatement, key: &PublicKey) -> bool {
    if statements::concerns(signed, key) {
        return true;
    }
    let named = |root: &PublicKey| {
        said.iter().any(|other| matches!(other.statement(), KeyStatement::Delegation { root: by, key: of, .. } if by == root && of == key))
    };
    match signed.statement() {
        KeyStatement::Delegation { .. } => false,
        KeyStatement::Rotation { old, .. } => named(old),
        KeyStatement::Revocation { key, by } => key == by && named(key),
    }
}

/// Asks peers about the keys whose statements they bring, each once in a command.
#[derive(Debug, Default)]
pub struct KeyQuestions(Mutex<HashSet<(PeerId, PublicKey)>>);

impl KeyQuestions {
    /// Asks those who answered about the signers of what they said, and takes in what is worth it.
    pub fn ask(
        &self,
        client: &BlockingClient,
        peers: &[PeerId],
        said: &[SignedRealisation],
        believer: &Believer,
        progress: &dyn Progress,
    ) {
        let signers: HashSet<_> = said.iter().map(|signed| *signed.signer()).collect();
        let (mut keys, mut to) = (HashSet::new(), HashSet::new());
        {
            let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (peer, key) in peers
                .iter()
                .flat_map(|p| signers.iter().map(move |k| (p, k)))
            {
                if keys.len() < TOPICS_MAX && asked.len() < ASKED_MAX && asked.insert((*peer, *key))
                {
                    keys.insert(*key);
                    to.insert(*peer);
                }
            }
        }
        if keys.is_empty() {
            return;
        }
        let topics = keys.iter().map(key_topic).collect();
        let to: Vec<_> = to.into_iter().collect();
        let heard = client.hear(topics, &to, KEYS_PATIENCE, progress);
        for heard in heard.unwrap_or_default() {
            let read = |bytes: &Vec<u8>| SignedKeyStatement::from_bytes(bytes).ok();
            let said: Vec<_> = things(&heard).filter_map(read).collect();
            believer.take_in(&format!("peer {}", heard.peer), &said);
        }
    }
}

/// The heads of a tree that peers have seen, with valid signatures; whose these are is for the caller to judge.
pub fn tree_heads_seen(
    client: &BlockingClient,
    name: &PackageName,
    progress: &dyn Progress,
) -> Vec<(PeerId, SignedHead)> {
    heads_seen(client, HeadKind::Tree, name, &[], HEADS_PATIENCE, progress)
}

/// The same of a package cache, from those who are connected already: nothing is to wait for it.
pub fn cache_heads_seen(
    client: &BlockingClient,
    name: &PackageName,
    progress: &dyn Progress,
) -> Vec<(PeerId, SignedHead)> {
    let status = client.status();
    let connected = status.map(|status| status.peers).unwrap_or_default();
    let connected: Vec<PeerId> = (connected.iter())
        .filter_map(|peer| peer.id.parse().ok())
        .collect();
    if connected.is_empty() {
        return Vec::new();
    }
    let patience = CACHE_HEADS_PATIENCE;
    heads_seen(
        client,
        HeadKind::Cache,
        name,
        &connected,
        patience,
        progress,
    )
}

fn heads_seen(
    client: &BlockingClient,
    kind: HeadKind,
    name: &PackageName,
    peers: &[PeerId],
    patience: Duration,
    progress: &dyn Progress,
) -> Vec<(PeerId, SignedHead)> {
    let heard = client.hear(vec![head_topic(kind, name)], peers, patience, progress);
    let mut heads = Vec::new();
    for heard in heard.unwrap_or_default() {
        let read = things(&heard).filter_map(|bytes| read_head(bytes, kind).ok());
        let of_name = read.filter(|signed| signed.head().name == *name);
        heads.extend(of_name.map(|signed| (heard.peer, signed)));
    }
    heads
}

fn things(heard: &Heard) -> impl Iterator<Item = &Vec<u8>> {
    heard.answers.iter().flatten().take(THINGS_OF_PEER_MAX)
}
