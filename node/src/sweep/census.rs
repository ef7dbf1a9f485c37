//! How many others provide our keys, as several peers say.
//!
//! One peer could say anything: that something rare is common would make stores with a quota drop it. So a few of those who
//! keep a key's records are asked, and the one in the middle is believed. To be believed above the truth, liars must be most
//! of those asked; below it, they only make us keep what need not be kept.

use std::collections::{HashMap, VecDeque};

use base::Multihash;

use super::map::{Contact, Map};
use super::position::Position;
use crate::record_protocol::QUESTIONS_MAX;

/// Peers asked about one key: of three answers a liar's is never the middle one unless it is true.
const PEERS_ASKED: usize = 3;
/// Polls at a time, each of some peers for some keys: they must not slow the rest down, and what is missed has another
/// chance.
const POLLS_MAX: usize = 2;

/// One question to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PollId(u64);

/// Some keys that the same peers are asked about.
#[derive(Debug)]
struct Poll {
    asked: usize,
    awaited: usize,
    answers: HashMap<Multihash, Vec<u32>>,
}

/// What is asked, and what was answered.
#[derive(Debug, Default)]
pub(super) struct Census {
    is_enabled: bool,
    polls: HashMap<PollId, Poll>,
    questions: VecDeque<(PollId, Contact, Vec<Multihash>)>,
    last_id: u64,
}

impl Census {
    pub(super) const fn enable(&mut self, is_enabled: bool) {
        self.is_enabled = is_enabled;
    }

    pub(super) fn has_room(&self) -> bool {
        self.is_enabled && self.polls.len() < POLLS_MAX
    }

    /// Asks about keys that have just been announced, neighbours of each other. Those that others than the first one's peers
    /// keep are left out.
    pub(super) fn ask(&mut self, map: &Map, mut keys: Vec<Multihash>, now: u64) {
        let Some(first) = keys.first() else {
            return;
        };
        let keepers = |key: &Multihash| map.keepers(Position::of(key.as_bytes()), now);
        let mut polled = keepers(first);
        polled.truncate(PEERS_ASKED);
        keys.truncate(QUESTIONS_MAX);
        keys.retain(|key| {
            let keepers = keepers(key);
            polled.iter().all(|peer| keepers.contains(peer))
        });
        if polled.is_empty() {
            return;
        }
        self.last_id += 1;
        let id = PollId(self.last_id);
        let poll = Poll {
            asked: polled.len(),
            awaited: polled.len(),
            answers: HashMap::new(),
        };
        self.polls.insert(id, poll);
        for peer in polled {
            let addresses = map.addresses(&peer).to_vec();
            let contact = Contact { peer, addresses };
            self.questions.push_back((id, contact, keys.clone()));
        }
    }

    /// The next question to put.
    pub(super) fn next(&mut self) -> Option<(PollId, Contact, Vec<Multihash>)> {
        self.questions.pop_front()
    }

    /// A peer has answered, or never will. What is believed, once all have.
    pub(super) fn answered(
        &mut self,
        id: PollId,
        counts: &[(Multihash, u32)],
    ) -> Vec<(Multihash, u32)> {
        let Some(poll) = self.polls.get_mut(&id) else {
            return Vec::new();
        };
        for (key, count) in counts {
            poll.answers.entry(*key).or_default().push(*count);
        }
        poll.awaited -= 1;
        if poll.awaited > 0 {
            return Vec::new();
        }
        let Some(poll) = self.polls.remove(&id) else {
            return Vec::new();
        };
        let asked = poll.asked;
        let believed = |(key, counts): (Multihash, Vec<u32>)| Some((key, middle(counts, asked)?));
        poll.answers.into_iter().filter_map(believed).collect()
    }
}

/// The count in the middle, the lower one of two; none if most of those asked said nothing.
fn middle(mut counts: Vec<u32>, asked: usize) -> Option<u32> {
    counts.sort_unstable();
    let is_enough = counts.len() > asked / 2;
    is_enough.then(|| counts[(counts.len() - 1) / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_liar_of_three_never_makes_anything_look_more_common() {
        for lie in [0, 1, 5, u32::MAX] {
            for place in 0..3 {
                let mut counts = vec![2; 3];
                counts[place] = lie;
                assert_eq!(middle(counts, 3), Some(2));
            }
            // Even if one of the others does not answer.
            assert!(middle(vec![2, lie], 3).is_some_and(|count| count <= 2));
        }
    }

    #[test]
    fn what_most_do_not_answer_is_not_known() {
        assert_eq!(middle(vec![7], 3), None);
        assert_eq!(middle(vec![7], 2), None);
        assert_eq!(middle(vec![7], 1), Some(7), "there is nobody else");
        assert_eq!(middle(Vec::new(), 1), None);
    }
}
