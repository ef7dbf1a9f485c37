//! What the two ends of a remote build say to each other, and how it is cut into frames.
//!
//! Each end begins with [`GREETING`]; then come frames: the length as four bytes, most significant first, and a message as
//! DAG-CBOR. The two directions have messages of their own, so that none can be taken for an answer to itself. What anybody
//! says is bounded before it is read, and what does not parse ends the conversation: there is no guessing where the next frame
//! begins. `docs/protocol.md` has the whole of it.

use std::io::{self, Read, Write};

use base::{PackageName, PkgHash, PublicKey, Sha256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::as_text::Text;

/// The first bytes of either end: what is spoken, and which version of it.
pub const GREETING: &[u8; 22] = b"p2pkgs-remote-build-1\n";
/// Longest frame in bytes: what thousands of packages have to say about themselves.
const FRAME_BYTES_MAX: u32 = 4 << 20;
/// Bytes of a file in one frame, and of a build's output: large enough to be cheap, small enough for others to get a word in.
pub const PIECE_BYTES: usize = 128 << 10;

/// What the machine says for which is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// What is to be built. Said once, first.
    Build(Request),
    /// The file that was wanted last.
    File(Part),
    /// A file of the [`Outcome`] is wanted.
    Get {
        /// Which.
        sha256: Text<Sha256>,
    },
    /// Nothing but that we are still here.
    Alive,
}

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Request {
    /// The recipes of the packages and of everything they are built with, as an archive.
    pub recipes: Text<Sha256>,
    /// The packages, with the hashes they must turn out to have.
    pub packages: Vec<(Text<PackageName>, Text<PkgHash>)>,
    /// Whether packages may not be taken from anybody who has built them.
    pub build_only: bool,
    /// Whether to go on with what does not depend on a failure.
    pub keep_going: bool,
    /// How many jobs at once the user would like.
    pub jobs: Option<u16>,
    /// What is said here of packages whose outputs can be wanted: signed realisations.
    pub statements: Vec<ByteBuf>,
}

/// What the machine says that builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Tell {
    /// Who signs what is built here. Said once, first.
    Welcome {
        /// The builder key.
        key: Text<PublicKey>,
        /// The version of p2pkgs, for people.
        version: String,
    },
    /// A file is wanted: the recipes, a source, or an output.
    Want {
        /// Which.
        sha256: Text<Sha256>,
    },
    /// Something has happened.
    News(News),
    /// Everything was tried. Said once, last but for files.
    Done(Outcome),
    /// The file that was asked for last.
    File(Part),
    /// Nothing but that we are still here.
    Alive,
}

/// A file on its way: first its length, then pieces until that is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// It follows.
    Have {
        /// Its length in bytes.
        size: u64,
    },
    /// It is not here.
    Lack,
    /// A piece of it, never an empty one.
    Piece(ByteBuf),
}

impl From<Part> for Ask {
    fn from(part: Part) -> Self {
        Self::File(part)
    }
}

impl From<Part> for Tell {
    fn from(part: Part) -> Self {
        Self::File(part)
    }
}

/// Something that happened while packages were built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum News {
    /// A build entered a phase.
    Phase {
        /// Which package.
        package: Text<PackageName>,
        /// The phase.
        phase: Phase,
    },
    /// A build printed something; not necessarily whole lines.
    Output {
        /// Which package.
        package: Text<PackageName>,
        /// What it printed.
        text: ByteBuf,
    },
    /// A package was built.
    Built {
        /// Which.
        package: Text<PackageName>,
        /// Size of its output in bytes.
        bytes: u64,
        /// How long its script ran, in milliseconds.
        millis: u64,
    },
    /// A source, seed or output has come from elsewhere than the other end.
    Fetched {
        /// For which package.
        package: Text<PackageName>,
        /// What, for people.
        what: String,
        /// Its size in bytes.
        bytes: u64,
        /// From whom, for people.
        from: String,
    },
    /// A build is over, whatever came of it.
    Over {
        /// Which package's.
        package: Text<PackageName>,
    },
    /// Something looks wrong but stops nothing.
    Warning {
        /// About which package.
        package: Text<PackageName>,
        /// What.
        text: String,
    },
}

/// The phases of a build, as [`builder::Phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its sources are fetched.
    Sources,
    /// It waits until others leave it a job.
    Waiting,
    /// Its scratch root is filled.
    Unpacking,
    /// Its script runs.
    Running,
    /// Its output is checked and packed.
    Packing,
}

/// What came of it all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outcome {
    /// The outputs of the packages and their run closures, as far as they could be had.
    pub outputs: Vec<Output>,
    /// Why others could not, in the order in which that was seen.
    pub failures: Vec<Fault>,
    /// Packages that were not built because of another one's failure, which is named second.
    pub skipped: Vec<(Text<PackageName>, Text<PackageName>)>,
}

/// An output that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Output {
    /// Whose.
    pub package: Text<PackageName>,
    /// The SHA-256 of its archive.
    pub sha256: Text<Sha256>,
    /// Who vouches for it: signed realisations. A seed has none, it is known by its sha256.
    pub statements: Vec<ByteBuf>,
}

/// Why a package could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    /// The exit code that a command there would have ended with.
    pub exit: u8,
    /// In a line.
    pub message: String,
    /// Lines to be shown before it, such as the end of a build's log.
    pub details: Vec<String>,
    /// What to do about it.
    pub hints: Vec<String>,
}

/// Why the other end cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// What came first was no greeting.
    #[error("it answers `{0}` instead of greeting")]
    Greeting(String),
    /// It speaks another version.
    #[error("it speaks `{0}`, this program `p2pkgs-remote-build-1`")]
    Version(String),
    /// A frame that would be longer than any.
    #[error("it sends a frame of {0} bytes, {FRAME_BYTES_MAX} are the limit")]
    TooLong(u32),
    /// A frame that holds no message.
    #[error("it sends what is no message: {0}")]
    Malformed(String),
    /// It went away in the middle of something.
    #[error("it broke off in the middle of a frame")]
    Truncated,
    /// The pipe broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Reads what the other end has to begin with. `Ok(false)` when it says nothing at all.
///
/// # Errors
/// [`WireError::Greeting`] or [`WireError::Version`] with what it says instead.
pub fn read_greeting(input: &mut impl Read) -> Result<bool, WireError> {
    let mut bytes = Vec::new();
    while bytes.last() != Some(&b'\n') && bytes.len() < GREETING.len() {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            break;
        }
        bytes.push(byte[0]);
    }
    if bytes.is_empty() || bytes == GREETING {
        return Ok(!bytes.is_empty());
    }
    let said = crate::sanitize::bytes(bytes.trim_ascii_end(), GREETING.len());
    Err(if bytes.starts_with(b"p2pkgs-remote-build-") {
        WireError::Version(said)
    } else {
        WireError::Greeting(said)
    })
}

/// Reads a message; `None` when the other end has finished.
///
/// # Errors
/// [`WireError`]; nothing after it makes sense.
pub fn read<T: DeserializeOwned>(input: &mut impl Read) -> Result<Option<T>, WireError> {
    let mut length = [0; 4];
    match fill(input, &mut length)? {
        0 => return Ok(None),
        4 => {}
        _ => return Err(WireError::Truncated),
    }
    let length = u32::from_be_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(WireError::TooLong(length));
    }
    let mut frame = Vec::new();
    // Grows with what comes, not with what was promised.
    input.take(u64::from(length)).read_to_end(&mut frame)?;
    if frame.len() < length as usize {
        return Err(WireError::Truncated);
    }
    let message = serde_ipld_dagcbor::from_slice(&frame);
    let malformed = |e: serde_ipld_dagcbor::DecodeError<_>| {
        WireError::Malformed(crate::sanitize::bytes(e.to_string().as_bytes(), 200))
    };
    message.map(Some).map_err(malformed)
}

/// Reads until the buffer is full or nothing more comes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Writes a message.
///
/// # Errors
/// When the pipe broke, or the message is longer than a frame may be.
pub fn write(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_ipld_dagcbor::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok();
    let length = length.filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| {
        io::Error::other(format!("a message of {} bytes is too long", body.len()))
    })?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    output.write_all(&frame)?;
    output.flush()
}

impl From<builder::Phase> for Phase {
    fn from(phase: builder::Phase) -> Self {
        match phase {
            builder::Phase::Sources => Self::Sources,
            builder::Phase::Waiting => Self::Waiting,
            builder::Phase::Unpacking => Self::Unpacking,
            builder::Phase::Running => Self::Running,
            builder::Phase::Packing => Self::Packing,
        }
    }
}

impl From<Phase> for builder::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Sources => Self::Sources,
            Phase::Waiting => Self::Waiting,
            Phase::Unpacking => Self::Unpacking,
            Phase::Running => Self::Running,
            Phase::Packing => Self::Packing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sha256() -> Text<Sha256> {
        Text(Sha256::of(b"x"))
    }

    fn package() -> Text<PackageName> {
        Text("make".parse().unwrap())
    }

    fn asks() -> Vec<Ask> {
        let request = Request {
            recipes: sha256(),
            packages: vec![(package(), Text(PkgHash::of_derivation(b"d")))],
            build_only: false,
            keep_going: true,
            jobs: Some(4),
            statements: vec![ByteBuf::from(b"s".to_vec())],
        };
        vec![
            Ask::Build(request),
            Part::Have { size: u64::MAX }.into(),
            Part::Lack.into(),
            Part::Piece(ByteBuf::from(vec![0; PIECE_BYTES])).into(),
            Ask::Get { sha256: sha256() },
            Ask::Alive,
        ]
    }

    fn tells() -> Vec<Tell> {
        let key = base::SecretKey::from_seed(&[1; 32]).public();
        let fault = Fault {
            exit: 5,
            message: "build of `make` failed".into(),
            details: vec!["cc: no input files".into()],
            hints: Vec::new(),
        };
        let output = Output {
            package: package(),
            sha256: sha256(),
            statements: Vec::new(),
        };
        let news = [
            News::Phase {
                package: package(),
                phase: builder::Phase::Running.into(),
            },
            News::Output {
                package: package(),
                text: ByteBuf::from(vec![0xff, 0x1b]),
            },
            News::Built {
                package: package(),
                bytes: 1,
                millis: 2,
            },
        ];
        let mut tells = vec![
            Tell::Welcome {
                key: Text(key),
                version: "0.1.0".into(),
            },
            Tell::Want { sha256: sha256() },
            Tell::Done(Outcome {
                outputs: vec![output],
                failures: vec![fault],
                skipped: vec![(package(), package())],
            }),
            Part::Have { size: 0 }.into(),
            Part::Lack.into(),
            Tell::Alive,
        ];
        tells.extend(news.map(Tell::News));
        tells
    }

    fn bytes_of(messages: &[impl Serialize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        messages.iter().for_each(|m| write(&mut bytes, m).unwrap());
        bytes
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let bytes = bytes_of(&asks());
        let mut input = &bytes[..];
        let read_all = std::iter::from_fn(|| read::<Ask>(&mut input).unwrap());
        assert_eq!(read_all.collect::<Vec<_>>(), asks());
        let bytes = bytes_of(&tells());
        let mut input = &bytes[..];
        let read_all = std::iter::from_fn(|| read::<Tell>(&mut input).unwrap());
        assert_eq!(read_all.collect::<Vec<_>>(), tells());
    }

    #[test]
    fn the_other_direction_another_version_and_chatter_are_told_apart() {
        let bytes = bytes_of(&[Ask::Build(match asks().remove(0) {
            Ask::Build(request) => request,
            other => panic!("{other:?}"),
        })]);
        let error = read::<Tell>(&mut &bytes[..]).unwrap_err();
        assert!(matches!(error, WireError::Malformed(_)), "{error}");
        assert!(read_greeting(&mut &GREETING[..]).unwrap());
        assert!(!read_greeting(&mut &b""[..]).unwrap());
        let error = read_greeting(&mut &b"p2pkgs-remote-build-2\n"[..]).unwrap_err();
        assert!(matches!(error, WireError::Version(_)), "{error}");
        let error = read_greeting(&mut &b"\x1b[31mWelcome to Linux!\nmore"[..]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it answers `Welcome to Linux!` instead of greeting"
        );
    }

    #[test]
    fn a_frame_is_bounded_before_it_is_read() {
        let error = read::<Ask>(&mut &u32::MAX.to_be_bytes()[..]).unwrap_err();
        assert!(matches!(error, WireError::TooLong(u32::MAX)), "{error}");
        let mut promised = FRAME_BYTES_MAX.to_be_bytes().to_vec();
        promised.push(0);
        let error = read::<Ask>(&mut &promised[..]).unwrap_err();
        assert!(matches!(error, WireError::Truncated), "{error}");
        let huge = Part::Piece(ByteBuf::from(vec![0; FRAME_BYTES_MAX as usize]));
        assert!(write(&mut Vec::new(), &huge).is_err());
    }

    proptest! {
        #[test]
        fn what_is_no_message_is_refused_and_never_read_as_another(
            which in 0_usize..6, at in any::<prop::sample::Index>(), with in any::<u8>()
        ) {
            let good = asks().swap_remove(which);
            let mut bytes = bytes_of(std::slice::from_ref(&good));
            let at = at.index(bytes.len());
            let changed = bytes[at] != with;
            bytes[at] = with;
            let mut input = &bytes[..];
            if let Ok(Some(message)) = read::<Ask>(&mut input) {
                prop_assert_eq!(message == good, !changed);
            }
        }

        #[test]
        fn noise_ends_in_an_error_or_at_its_end(noise in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut input = &noise[..];
            while let Ok(Some(_)) = read::<Tell>(&mut input) {}
            let _ = read_greeting(&mut &noise[..]);
        }

        #[test]
        fn bodies_of_noise_are_refused(body in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            frame.extend(&body);
            if let Ok(Some(message)) = read::<Ask>(&mut &frame[..]) {
                // Whatever parses has one encoding.
                prop_assert_eq!(bytes_of(&[message]), frame);
            }
        }

        #[test]
        fn nothing_that_was_cut_is_a_message(which in 0_usize..6, at in any::<prop::sample::Index>()) {
            let bytes = bytes_of(&asks()[which..=which]);
            let cut = at.index(bytes.len());
            match read::<Ask>(&mut &bytes[..cut]) {
                Ok(None) => prop_assert_eq!(cut, 0),
                Ok(Some(message)) => prop_assert!(false, "{:?}", message),
                Err(_) => {}
            }
        }
    }
}
