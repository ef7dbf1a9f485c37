//! Announcing what the store's queue names, and keeping the announcements of others.

use std::collections::HashMap;
use std::time::Instant;

use base::{Codec, Multihash, block_cid};
use libp2p::kad::{self, store::RecordStore as _};
use store::{Provide, ProvideCounts, StoreError};
use tokio::sync::oneshot;

use super::{Done, EventLoop, QueryUse, unix_secs};
use crate::config::Config;
use crate::provider_store::ProviderStore;
use crate::providers::{Announcer, Counts, jitter, next_unix_secs};

/// What the store said about its queue.
pub(super) struct Due {
    result: Result<(Vec<Provide>, ProvideCounts), StoreError>,
}

/// The state of announcing.
pub(super) struct Announcing {
    enabled: bool,
    announcer: Announcer,
    /// Set while the store is being asked.
    asking: bool,
    /// How the queue stood when the store was asked last.
    queue: ProvideCounts,
    /// Who waits for which announcement.
    replies: HashMap<Multihash, Vec<oneshot::Sender<u32>>>,
}

impl Announcing {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            enabled: config.provide,
            announcer: Announcer::new(config.limits.provides),
            asking: false,
            queue: ProvideCounts::default(),
            replies: HashMap::new(),
        }
    }

    /// Records made so far lead to addresses that are not ours any more.
    pub(super) fn addresses_changed(&mut self) {
        self.announcer.restart();
    }

    pub(super) fn counts(&self) -> (Counts, ProvideCounts) {
        (self.announcer.counts(), self.queue)
    }
}

impl EventLoop {
    /// Asks the store for keys to announce. Without anybody to tell there is no point.
    pub(super) fn look_for_due_keys(&mut self) {
        if !self.announcing.enabled || self.announcing.asking || self.dht_peers() == 0 {
            return;
        }
        let now = unix_secs();
        let Some(ask) = self.announcing.announcer.ask(now) else {
            return;
        };
        self.announcing.asking = true;
        let store = self.store.clone();
        self.spawn(move || {
            let due = store.provides_due(ask.due_unix_secs, ask.limit);
            let result = due.and_then(|due| Ok((due, store.provide_counts(now)?)));
            Done::Due(Due { result })
        });
    }

    pub(super) fn announce(&mut self, due: Due) {
        self.announcing.asking = false;
        let (due, queue) = match due.result {
            Ok(answer) => answer,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                return tracing::warn!(error, "cannot read the queue of keys to announce");
            }
        };
        self.announcing.queue = queue;
        for key in self.announcing.announcer.pick(&due, unix_secs()) {
            self.start_announcing(key);
        }
    }

    /// Announces a key out of turn.
    pub(super) fn provide_now(&mut self, key: Multihash, reply: oneshot::Sender<u32>) {
        self.announcing.replies.entry(key).or_default().push(reply);
        self.start_announcing(key);
    }

    fn start_announcing(&mut self, key: Multihash) {
        let behaviour = self.swarm.behaviour_mut();
        // A key that appears in the queue names something that has just been stored: who waits for it is served.
        for codec in [Codec::Raw, Codec::DagPb] {
            behaviour
                .exchange
                .notify_new_block(&block_cid(codec, &key.digest()));
        }
        let announced = self.dht_key(&key);
        let behaviour = self.swarm.behaviour_mut();
        match behaviour
            .kad
            .start_providing(kad::RecordKey::new(announced.as_bytes()))
        {
            Ok(query) => {
                self.queries.insert(query, QueryUse::Announce(key));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot announce a key");
                self.announced(&key, 0);
            }
        }
    }

    /// An announcement is over and has reached so many nodes.
    pub(super) fn announced(&mut self, key: &Multihash, told: u32) {
        let now = unix_secs();
        self.announcing.announcer.settle(key, told > 0, now);
        for reply in self.announcing.replies.remove(key).into_iter().flatten() {
            let _ = reply.send(told);
        }
        if told > 0 {
            let (store, key) = (self.store.clone(), *key);
            self.spawn(move || {
                let next = next_unix_secs(now, jitter(&key));
                if let Err(error) = store.set_provided(&[key], now, next) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot note that a key was announced");
                }
                Done::Noted
            });
        }
    }

    /// Another node asks us to remember what it provides. The library has checked that it speaks for itself.
    pub(super) fn keep_provider_record(&mut self, record: kad::ProviderRecord) {
        if !ProviderStore::accepts(&record) {
            return tracing::debug!(provider = %record.provider, "refusing a provider record");
        }
        let store = self.swarm.behaviour_mut().kad.store_mut();
        if store.add_provider(record.clone()).is_err() {
            // It may only be full of what has expired.
            store.collect(Instant::now());
            let _ = store.add_provider(record);
        }
    }
}
