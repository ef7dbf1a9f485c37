//! What the end that builds hears: one thread reads, and hands on each thing to whom it is for.
//!
//! It never waits for anybody but for who has asked for a file: only so it always notices that the other end is gone, which ends
//! every build.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use base::Sha256;

use super::link::{Ear, Heard, SILENCE_MAX, TICK};
use super::wire::{Ask, Part, Request, WireError, read, read_greeting};
use crate::interrupt::Interrupt;

/// Pieces of a file that were read and not yet written.
const PARTS_MAX: usize = 8;
/// Outputs that may be asked for before the first was sent: as many as any tree has.
const GETS_MAX: usize = 100_000;

/// What was heard.
#[derive(Debug)]
pub struct Inbox {
    /// What is to be built.
    pub request: Receiver<Request>,
    /// Parts of the file that was wanted last.
    pub parts: Receiver<Part>,
    /// The outputs that are asked for.
    pub gets: Receiver<Sha256>,
    /// Whether a file is expected now.
    pub expecting: Arc<AtomicBool>,
    /// Why nothing is heard any more; `None` when the other end has simply finished.
    pub ended: Arc<Mutex<Option<WireError>>>,
}

/// The other side of an inbox.
struct Slots {
    request: Option<SyncSender<Request>>,
    parts: SyncSender<Part>,
    gets: SyncSender<Sha256>,
    expecting: Arc<AtomicBool>,
}

impl Inbox {
    /// Hears what comes from `input`; when that ends, so does the command.
    pub fn listen(input: impl Read + Send + 'static, interrupt: &Interrupt) -> Self {
        let (request, requests) = mpsc::sync_channel(1);
        let (part, parts) = mpsc::sync_channel(PARTS_MAX);
        let (get, gets) = mpsc::sync_channel(GETS_MAX);
        let inbox = Self {
            request: requests,
            parts,
            gets,
            expecting: Arc::default(),
            ended: Arc::default(),
        };
        let mut slots = Slots {
            request: Some(request),
            parts: part,
            gets: get,
            expecting: Arc::clone(&inbox.expecting),
        };
        let (mut heard, ear) = Heard::new(input);
        end_when_silent(ear, interrupt.clone());
        let (ended, interrupt) = (Arc::clone(&inbox.ended), interrupt.clone());
        thread::spawn(move || {
            let error = slots.fill(&mut heard).err();
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = error;
            interrupt.raise();
        });
        inbox
    }
}

/// A machine that vanished does not close its connection.
fn end_when_silent(ear: Arc<Ear>, interrupt: Interrupt) {
    thread::spawn(move || {
        while ear.silence() <= SILENCE_MAX {
            thread::sleep(TICK);
        }
        interrupt.raise();
    });
}

impl Slots {
    fn fill(&mut self, heard: &mut impl Read) -> Result<(), WireError> {
        if !read_greeting(heard)? {
            return Ok(());
        }
        while let Some(ask) = read(heard)? {
            self.hand_on(ask)?;
        }
        Ok(())
    }

    fn hand_on(&mut self, ask: Ask) -> Result<(), WireError> {
        let odd = |what: &str| WireError::Malformed(what.to_owned());
        match ask {
            Ask::Alive => Ok(()),
            Ask::Build(request) => {
                let slot = self.request.take();
                let slot = slot.ok_or_else(|| odd("a second request"))?;
                slot.try_send(request)
                    .map_err(|_| odd("a request too late"))
            }
            Ask::File(part) if self.expecting.load(Ordering::SeqCst) => {
                self.parts.send(part).map_err(|_| odd("a file too late"))
            }
            Ask::File(_) => Err(odd("a file that nobody wanted")),
            Ask::Get { sha256 } => {
                let full = |_| odd("more questions than there are answers");
                self.gets.try_send(sha256.0).map_err(full)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::super::wire::{GREETING, write};
    use super::*;
    use crate::as_text::Text;

    fn request() -> Ask {
        Ask::Build(Request {
            recipes: Text(Sha256::of(b"recipes")),
            packages: Vec::new(),
            build_only: false,
            keep_going: false,
            jobs: None,
            statements: Vec::new(),
        })
    }

    /// What is left when this was heard: requests, parts and gets, and why it ended.
    fn hear(asks: &[Ask], expecting: bool) -> (usize, usize, usize, Result<(), String>) {
        let (request, requests) = mpsc::sync_channel(1);
        let (part, parts) = mpsc::sync_channel(PARTS_MAX);
        let (get, gets) = mpsc::sync_channel(2);
        let mut slots = Slots {
            request: Some(request),
            parts: part,
            gets: get,
            expecting: Arc::new(AtomicBool::new(expecting)),
        };
        let mut bytes = GREETING.to_vec();
        asks.iter().for_each(|ask| write(&mut bytes, ask).unwrap());
        let ended = slots.fill(&mut &bytes[..]);
        let ended = ended.map_err(|error| error.to_string());
        let left = (requests.try_iter().count(), parts.try_iter().count());
        (left.0, left.1, gets.try_iter().count(), ended)
    }

    #[test]
    fn each_thing_goes_to_whom_it_is_for() {
        let get = Ask::Get {
            sha256: Text(Sha256::of(b"output")),
        };
        let asks = [request(), Ask::Alive, Part::Lack.into(), get];
        assert_eq!(hear(&asks, true), (1, 1, 1, Ok(())));
        assert_eq!(hear(&[], false), (0, 0, 0, Ok(())));
    }

    #[test]
    fn what_comes_unasked_or_without_end_ends_it() {
        let piece = || Ask::from(Part::Piece(ByteBuf::from(vec![0])));
        let get = || Ask::Get {
            sha256: Text(Sha256::of(b"output")),
        };
        for (asks, why) in [
            (vec![piece()], "a file that nobody wanted"),
            (vec![request(), request()], "a second request"),
            (
                vec![get(), get(), get()],
                "more questions than there are answers",
            ),
        ] {
            let ended = hear(&asks, false).3.unwrap_err();
            assert!(ended.contains(why), "{ended}");
        }
    }
}
