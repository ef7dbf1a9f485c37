//! Names in the DHT: putting records there, looking for them, keeping those of others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libp2p::PeerId;
use libp2p::kad;
use libp2p::kad::store::RecordStore as _;
use libp2p::request_response::OutboundRequestId;
use store::StoreError;
use store::substitute::Asked;
use tokio::sync::oneshot;

use super::{Done, EventLoop, QueryUse, unix_secs};
use crate::ipns::{IpnsName, IpnsRecord};
use crate::names::{NameError, Resolved, settle};
use crate::record_protocol::{Request, Value};
use crate::sweep::Contact;

/// Valid answers after which no further ones are waited for, as in the public network: so many of the twenty nodes that
/// should have it rarely miss the newest record.
const ANSWERS_ENOUGH: u32 = 16;

/// One name being resolved or published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NameId(u64);

enum Work {
    Resolve {
        name: IpnsName,
        newest: Option<Box<IpnsRecord>>,
        valid: u32,
        reply: oneshot::Sender<Result<Resolved, NameError>>,
    },
    Publish {
        record: Box<IpnsRecord>,
        /// Who should have it, once they are known.
        closest: Vec<Contact>,
        /// Those of them that have not answered yet, and how many have it.
        awaited: usize,
        told: u32,
        reply: oneshot::Sender<Result<u32, NameError>>,
    },
}

struct Active {
    work: Work,
    asked: Asked,
    deadline: Instant,
    query: Option<kad::QueryId>,
}

/// A record of ours that the store has taken, or not.
pub(super) struct Kept {
    result: Result<bool, StoreError>,
    record: Box<IpnsRecord>,
    reply: oneshot::Sender<Result<u32, NameError>>,
}

/// All names in progress.
#[derive(Default)]
pub(super) struct Names {
    active: HashMap<NameId, Active>,
    waiting: VecDeque<NameId>,
    deliveries: HashMap<OutboundRequestId, NameId>,
    next: u64,
}

impl EventLoop {
    pub(super) fn resolve_name(
        &mut self,
        name: IpnsName,
        reply: oneshot::Sender<Result<Resolved, NameError>>,
    ) {
        let work = Work::Resolve {
            name,
            newest: None,
            valid: 0,
            reply,
        };
        self.start_name(work, self.config.deadlines.dht_lookup);
    }

    /// Publishes a record once the store has seen that it is the newest.
    pub(super) fn publish_name(
        &mut self,
        record: Box<IpnsRecord>,
        reply: oneshot::Sender<Result<u32, NameError>>,
    ) {
        let store = self.store.clone();
        self.spawn(move || {
            let name = record.name().to_bytes();
            let result = store.keep_name_record(&name, record.sequence(), record.bytes());
            Done::Name(Kept {
                result,
                record,
                reply,
            })
        });
    }

    pub(super) fn name_kept(&mut self, kept: Kept) {
        let Kept {
            result,
            record,
            reply,
        } = kept;
        let refused = match result {
            Ok(true) => {
                let work = Work::Publish {
                    record,
                    closest: Vec::new(),
                    awaited: 0,
                    told: 0,
                    reply,
                };
                // A walk to the nodes that should have it, then the records themselves.
                return self.start_name(work, 2 * self.config.deadlines.dht_lookup);
            }
            Ok(false) => NameError::Older {
                name: *record.name(),
                sequence: record.sequence(),
            },
            Err(error) => error.into(),
        };
        // Who asked may be gone; here and below.
        let _ = reply.send(Err(refused));
    }

    fn start_name(&mut self, work: Work, patience: Duration) {
        let id = NameId(self.names.next);
        self.names.next += 1;
        let active = Active {
            work,
            asked: Asked::default(),
            deadline: Instant::now() + patience,
            query: None,
        };
        self.names.active.insert(id, active);
        self.names.waiting.push_back(id);
        self.start_waiting_queries();
    }

    /// Starts as many of the waiting names as may run.
    pub(super) fn start_waiting_names(&mut self) {
        if self.names.waiting.is_empty() || !self.dht_is_ready() {
            return;
        }
        while self.queries.len() < self.config.limits.dht_queries {
            let Some(id) = self.names.waiting.pop_front() else {
                return;
            };
            let Some(active) = self.names.active.get_mut(&id) else {
                continue;
            };
            let kad = &mut self.swarm.behaviour_mut().kad;
            let query = match &active.work {
                Work::Resolve { name, .. } => {
                    Ok(kad.get_record(kad::RecordKey::new(&name.dht_key())))
                }
                // Our own part of the DHT has it too, unless that knows a newer one, which we have not seen otherwise.
                Work::Publish { record, .. } => kad
                    .store_mut()
                    .put(to_kad(record))
                    .map(|()| kad.get_closest_peers(record.name().dht_key())),
            };
            match query {
                Ok(query) => {
                    active.query = Some(query);
                    self.queries.insert(query, QueryUse::Name(id));
                }
                Err(error) => {
                    tracing::info!(%error, "not publishing a name");
                    self.finish_name(id);
                }
            }
        }
    }

    /// A query has found a record, or the nodes that should have one.
    pub(super) fn name_progress(&mut self, id: NameId, result: &kad::QueryResult, nodes: u32) {
        let found = match result {
            kad::QueryResult::GetClosestPeers(result) => self.contacts(result),
            _ => Vec::new(),
        };
        let Some(active) = self.names.active.get_mut(&id) else {
            return;
        };
        active.asked.dht_nodes = nodes;
        match (&mut active.work, result) {
            (
                Work::Resolve {
                    name,
                    newest,
                    valid,
                    ..
                },
                kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))),
            ) => match IpnsRecord::verify(name, &found.record.value, SystemTime::now()) {
                Ok(record) => {
                    *valid += 1;
                    if newest.as_ref().is_none_or(|old| record.is_newer_than(old)) {
                        *newest = Some(Box::new(record));
                    }
                    if *valid >= ANSWERS_ENOUGH {
                        self.end_query(id);
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = ?found.peer, %error, "a peer has an invalid record");
                    active.asked.invalid += 1;
                }
            },
            (Work::Publish { closest, .. }, kad::QueryResult::GetClosestPeers(_)) => {
                *closest = found;
            }
            _ => {}
        }
    }

    /// A query is over.
    pub(super) fn name_query_ended(&mut self, id: NameId) {
        let Some(active) = self.names.active.get_mut(&id) else {
            return;
        };
        active.query = None;
        match &mut active.work {
            Work::Publish {
                record,
                closest,
                awaited,
                ..
            } if !closest.is_empty() => {
                let value = Arc::new(Value {
                    key: record.name().dht_key(),
                    value: record.bytes().to_vec(),
                });
                let closest = std::mem::take(closest);
                *awaited = closest.len();
                for to in closest {
                    let request = self.visit(to, Request::Put(Arc::clone(&value)));
                    self.names.deliveries.insert(request, id);
                }
            }
            Work::Publish { .. } | Work::Resolve { .. } => self.finish_name(id),
        }
    }

    /// A node has a record now, or has it not.
    pub(super) fn record_delivered(&mut self, request: OutboundRequestId, has_it: bool) {
        let Some(id) = self.names.deliveries.remove(&request) else {
            return;
        };
        if let Some(active) = self.names.active.get_mut(&id)
            && let Work::Publish { awaited, told, .. } = &mut active.work
        {
            *told += u32::from(has_it);
            *awaited = awaited.saturating_sub(1);
            if *awaited == 0 {
                self.finish_name(id);
            }
        }
    }

    /// Ends what is overdue or wanted by nobody any more.
    pub(super) fn sweep_names(&mut self) {
        let now = Instant::now();
        let over: Vec<_> = self
            .names
            .active
            .iter()
            .filter(|(_, active)| active.deadline <= now || active.work.is_unwanted())
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.end_query(id);
            self.finish_name(id);
        }
    }

    fn end_query(&mut self, id: NameId) {
        if let Some(active) = self.names.active.get(&id)
            && let Some(query) = active.query
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query)
        {
            query.finish();
        }
    }

    /// Tells who asked. What the store has to say to it is found out on another thread.
    fn finish_name(&mut self, id: NameId) {
        let Some(Active {
            work, mut asked, ..
        }) = self.names.active.remove(&id)
        else {
            return;
        };
        asked.first_peers_unreachable = self.peers.first_unreachable();
        let store = self.store.clone();
        self.spawn(move || {
            match work {
                Work::Resolve {
                    name,
                    newest,
                    reply,
                    ..
                } => {
                    let _ = reply.send(settle(
                        &store,
                        &name,
                        newest.as_deref(),
                        asked,
                        SystemTime::now(),
                    ));
                }
                Work::Publish {
                    record,
                    told,
                    reply,
                    ..
                } => {
                    let name = record.name().to_bytes();
                    let noted = match told {
                        0 => Ok(()),
                        _ => store.set_name_published(&name, record.bytes(), unix_secs()),
                    };
                    let _ = reply.send(noted.map(|()| told).map_err(NameError::from));
                }
            }
            Done::Noted
        });
    }

    /// Another node asks us to remember a record.
    pub(super) fn keep_name_of_other(&mut self, source: &PeerId, record: kad::Record) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let store = self.swarm.behaviour_mut().kad.store_mut();
        if let Err(error) = store.names_mut().keep(record, now, clock) {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(%source, error, "refusing a record");
        }
    }
}

impl Work {
    fn is_unwanted(&self) -> bool {
        match self {
            Self::Resolve { reply, .. } => reply.is_closed(),
            Self::Publish { reply, .. } => reply.is_closed(),
        }
    }
}

fn to_kad(record: &IpnsRecord) -> kad::Record {
    let key = kad::RecordKey::new(&record.name().dht_key());
    kad::Record::new(key, record.bytes().to_vec())
}
