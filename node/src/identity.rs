//! The node's identity: an Ed25519 key in a file of mode 0600, encoded as every libp2p program encodes it.
//!
//! The identity names a machine on the network and nothing else; what vouches for packages is a builder key
//! ([`base::SecretKey`]). A short-lived command does not need the machine's name and takes an [`ephemeral`] one, so that it
//! never fights with a running daemon for the same peer id.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use libp2p::identity::{KeyType, Keypair};

use crate::error::IdentityError;

/// Longest key file we read, in bytes; an Ed25519 key takes 68.
const KEY_FILE_BYTES_MAX: u64 = 4096;
/// Permission bits of the group and of others: none of them may be set on a private key.
const OTHERS: u32 = 0o077;

/// A key that lives as long as the process.
pub fn ephemeral() -> Keypair {
    Keypair::generate_ed25519()
}

/// Reads the key in `path`, or makes one there. Two processes that start at once end up with the same key.
///
/// # Errors
/// [`IdentityError`] when the file cannot be read or written, is readable by others, or holds no Ed25519 key.
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match load(path)? {
        Some(key) => Ok(key),
        None => create(path),
    }
}

fn load(path: &Path) -> Result<Option<Keypair>, IdentityError> {
    let io = |action| {
        move |source| IdentityError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    let mode = file.metadata().map_err(io("inspect"))?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(io("read"))?;
    let key =
        Keypair::from_protobuf_encoding(&bytes).map_err(|source| IdentityError::Malformed {
            path: path.to_owned(),
            source,
        })?;
    match key.key_type() {
        KeyType::Ed25519 => Ok(Some(key)),
        _ => Err(IdentityError::Kind {
            path: path.to_owned(),
        }),
    }
}

/// Writes a new key beside `path` and links it into place, which fails rather than replaces when another process was first.
fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let io = |action| {
        move |source| IdentityError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let key = Keypair::generate_ed25519();
    let bytes = key
        .to_protobuf_encoding()
        .expect("an Ed25519 key has a protobuf form");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io("make the folder of"))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(
        ".{}.{}",
        std::process::id(),
        key.public().to_peer_id()
    ));
    let temporary = path.with_file_name(name);
    let result = write_new(&temporary, &bytes)
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        })
        .map_err(io("write"));
    // The link keeps the key; a temporary that stays behind after an error is only a stray file.
    let _ = fs::remove_file(&temporary);
    result?;
    load(path)?.ok_or_else(|| io("read")(io::ErrorKind::NotFound.into()))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again_with_mode_600() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state/node.key");
        let first = load_or_create(&path).unwrap();
        let again = load_or_create(&path).unwrap();
        assert_eq!(first.public().to_peer_id(), again.public().to_peer_id());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no stray files"
        );
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node.key");
        let peers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(&path)))
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap().unwrap().public().to_peer_id())
                .collect()
        });
        assert!(peers.iter().all(|peer| *peer == peers[0]));
    }

    #[test]
    fn the_specifications_key_gives_the_specifications_peer_id() {
        let hex = "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d\
                   1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node.key");
        write_new(&path, &bytes).unwrap();
        let key = load_or_create(&path).unwrap();
        let expected = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
        assert_eq!(key.public().to_peer_id().to_string(), expected);
    }

    #[test]
    fn garbage_and_keys_that_others_can_read_are_refused_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("node.key");
        write_new(&path, b"not a key").unwrap();
        assert!(matches!(
            load_or_create(&path),
            Err(IdentityError::Malformed { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"not a key");

        let open = home.path().join("open.key");
        load_or_create(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load_or_create(&open),
            Err(IdentityError::Exposed { mode: 0o640, .. })
        ));
    }
}
