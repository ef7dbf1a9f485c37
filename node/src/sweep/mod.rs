//! Announcing many keys with few lookups: the sweep through the keyspace.
//!
//! Looking up the 20 peers closest to a key costs tens of requests and takes seconds; with one lookup for each, a node that
//! holds 10,000 keys never gets round. But neighbours in the keyspace have the same closest peers. So keys are taken from
//! one end of the keyspace to the other, what each lookup says of the network is remembered for a while ([`map`]), and only
//! where peers may be unknown another lookup is made. Then each peer gets all the records that are its to keep over one
//! stream. When a key's turn comes again is up to the [`schedule`].
//!
//! [`Sweeper`] is pure: it is told the time, what is due, what lookups found and what arrived; it says what to look up and
//! what to send where.

mod census;
mod map;
mod position;
mod queue;
mod schedule;
mod sweeper;
mod tally;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use self::census::PollId;
pub(crate) use self::map::Contact;
pub(crate) use self::position::Position;
pub(crate) use self::schedule::Schedule;
pub(crate) use self::sweeper::{Action, Answer, DeliveryId, LookupId, Settled, Sweeper};
pub(crate) use self::tally::Counts;
