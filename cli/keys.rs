//! Builder keys of one's own: `keys/NAME.key` of the home directory.
//!
//! They count without being listed: what this user built, this user may use. Everybody else's must be named, see
//! `trust_file`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{Cid, PublicKey, Realisation, SecretKey, SignedRealisation};
use builder::Signer;

use crate::error::{CmdResult, Exit, Failure};
use crate::home::{Home, private_dir};
use crate::ui::Ui;

/// Name of the key that the first build makes.
pub const DEFAULT_KEY: &str = "default";
/// Largest key file that is looked at, in bytes; ours have 80.
const KEY_FILE_BYTES_MAX: u64 = 4096;
/// Longest name of a key in bytes; it is a file name.
const KEY_NAME_BYTES_MAX: usize = 64;

/// A key of our own.
#[derive(Debug)]
pub struct OwnKey {
    /// Its name.
    pub name: String,
    /// The key.
    pub key: SecretKey,
}

/// The own key of that name.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn own_key(home: &Home, name: &str) -> CmdResult<Option<SecretKey>> {
    key_in_file(&key_path(home, name)?)
}

/// The key that a file holds; `None` if there is no such file.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn key_in_file(path: &Path) -> CmdResult<Option<SecretKey>> {
    let text = match fs::metadata(path) {
        Ok(meta) if meta.len() > KEY_FILE_BYTES_MAX => String::new(),
        Ok(_) => fs::read_to_string(path).map_err(reading(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reading(path)(error)),
    };
    let key = SecretKey::from_text(text.trim_end())
        .map_err(|e| Failure::from(e).context(format!("`{}` holds no key", path.display())))?;
    Ok(Some(key))
}

/// Gives a key another name, which must not be taken.
///
/// # Errors
/// When the name is taken by another key, or the disk fails.
pub fn rename_key(home: &Home, from: &str, to: &str) -> CmdResult {
    let (from, to) = (key_path(home, from)?, key_path(home, to)?);
    move_file(&from, &to)
}

/// Takes a key out of use, but leaves its file; returns where that lies now.
///
/// # Errors
/// When the disk fails.
pub fn put_away(home: &Home, name: &str) -> CmdResult<PathBuf> {
    let from = key_path(home, name)?;
    let to = from.with_extension("key.revoked");
    move_file(&from, &to)?;
    Ok(to)
}

/// A link fails if the name is taken, where a renaming would replace.
fn move_file(from: &Path, to: &Path) -> CmdResult {
    fs::hard_link(from, to)
        .and_then(|()| fs::remove_file(from))
        .map_err(writing(to))
}

/// All own keys, sorted by name.
///
/// # Errors
/// When one cannot be read.
pub fn own_keys(home: &Home) -> CmdResult<Vec<OwnKey>> {
    let dir = home.path("keys");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(reading(&dir)(error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".key")?.to_owned()))
        .collect();
    names.sort();
    let mut keys = Vec::new();
    for name in names {
        if let Some(key) = own_key(home, &name)? {
            keys.push(OwnKey { name, key });
        }
    }
    Ok(keys)
}

/// Makes a new key. Two processes that make the same one at once get the same key: who comes second reads the first's.
///
/// # Errors
/// When randomness or the disk fails; [`Self`] never replaces a key.
pub fn create_key(home: &Home, name: &str) -> CmdResult<(SecretKey, bool)> {
    let path = key_path(home, name)?;
    if let Some(key) = own_key(home, name)? {
        return Ok((key, false));
    }
    home.create()?;
    private_dir(&home.path("keys")).map_err(writing(&path))?;
    let key = SecretKey::from_seed(&secret()?);
    match write_new(&path, &format!("{}\n", key.to_text())) {
        Ok(()) => Ok((key, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let key = own_key(home, name)?.ok_or_else(|| writing(&path)(error))?;
            Ok((key, false))
        }
        Err(error) => Err(writing(&path)(error)),
    }
}

/// The own key of a name, to sign heads with; who signs the first one gets the default key, as with the first build.
///
/// # Errors
/// When there is no other key of that name, or as [`create_key`].
pub fn signing_key(home: &Home, ui: &Ui, name: &str) -> CmdResult<SecretKey> {
    match own_key(home, name)? {
        Some(key) => Ok(key),
        None if name == DEFAULT_KEY => {
            let (key, _) = create_key(home, name)?;
            ui.status(format!("made builder key `{name}`: {}", key.public()));
            Ok(key)
        }
        None => {
            let failure = Failure::new(Exit::NotFound, format!("there is no key `{name}`"));
            Err(failure.hint(format!("make it with `p2pkgs key new {name}`")))
        }
    }
}

/// Makes a key that is to be shared: `swarm.key`, where the profile `private` looks for it, or `group.key`.
///
/// # Errors
/// When there is one already: to replace it would cut this home off from those who have it.
pub fn create_shared_key(home: &Home, of: &str) -> CmdResult<PathBuf> {
    home.create()?;
    let path = home.path(&format!("{of}.key"));
    let key = netconfig::SwarmKey::from_bytes(secret()?);
    write_new(&path, &key.to_text()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("there is a {of} key already: `{}`", path.display()))
        }
        _ => writing(&path)(error),
    })?;
    Ok(path)
}

fn secret() -> CmdResult<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|e| Failure::from(io::Error::from(e)).context("no randomness for a key"))?;
    Ok(secret)
}

/// Writes a secret file that must not exist yet. A hard link fails if the name is taken, and shows the whole file or none.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::hard_link(&temporary, path)
    };
    let written = write();
    let _ = fs::remove_file(&temporary);
    written
}

/// The key that signs what is built. It is made when the first output is to be signed, for who only fetches needs none;
/// one that is there is read at once, so that a damaged file is told before anything is built.
#[derive(Debug)]
pub struct BuildKey {
    home: Home,
    ui: Ui,
    key: Mutex<Option<SecretKey>>,
}

impl BuildKey {
    /// The key `default` of a home.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn of(home: &Home, ui: &Ui) -> CmdResult<Self> {
        Ok(Self {
            home: home.clone(),
            ui: ui.clone(),
            key: Mutex::new(own_key(home, DEFAULT_KEY)?),
        })
    }

    fn make(&self) -> io::Result<SecretKey> {
        let made = create_key(&self.home, DEFAULT_KEY);
        let (key, is_new) = made.map_err(|failure| io::Error::other(failure.into_error()))?;
        if is_new {
            self.ui.status(format!(
                "made builder key `{DEFAULT_KEY}`: {}",
                key.public()
            ));
        }
        Ok(key)
    }

    fn lock(&self) -> MutexGuard<'_, Option<SecretKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signer for BuildKey {
    fn public(&self) -> Option<PublicKey> {
        let mut known = self.lock();
        if known.is_none() {
            // Another process may have made it meanwhile.
            *known = own_key(&self.home, DEFAULT_KEY).ok().flatten();
        }
        known.as_ref().map(SecretKey::public)
    }

    fn vouch(
        &self,
        realisation: Realisation,
        inputs: Option<Cid>,
    ) -> io::Result<SignedRealisation> {
        let mut known = self.lock();
        let key = match known.take() {
            Some(key) => key,
            None => self.make()?,
        };
        Ok(realisation.sign_with(known.insert(key), inputs))
    }
}

fn key_path(home: &Home, name: &str) -> CmdResult<PathBuf> {
    key_file(home, "keys", name)
}

/// Where the key of a name lies in a folder of the home.
///
/// # Errors
/// When the name cannot be the name of a file.
pub fn key_file(home: &Home, folder: &str, name: &str) -> CmdResult<PathBuf> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=KEY_NAME_BYTES_MAX).contains(&name.len());
    if !fits || name.starts_with('.') || !name.chars().all(harmless) {
        let name = crate::sanitize::line(name);
        return Err(
            Failure::usage(format!("`{name}` cannot be the name of a key"))
                .hint("use letters, digits, `-`, `_` and `.`"),
        );
    }
    Ok(home.path(folder).join(format!("{name}.key")))
}

/// A file that could not be read.
pub fn reading(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |e| Failure::from(e).context(format!("cannot read `{}`", path.display()))
}

/// A file that could not be written.
pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |e| Failure::from(e).context(format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
pub mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A home that is not there yet.
    pub fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(&dir.path().join("home"))).unwrap();
        (dir, home)
    }

    #[test]
    fn a_key_is_made_once_kept_private_and_read_back() {
        let (_dir, home) = home();
        assert!(own_key(&home, "default").unwrap().is_none());
        let (first, new) = create_key(&home, "default").unwrap();
        assert!(new);
        let (second, new) = create_key(&home, "default").unwrap();
        assert!(!new);
        assert_eq!(first.public(), second.public());
        assert_eq!(own_keys(&home).unwrap().len(), 1);
        let mode = fs::metadata(home.path("keys/default.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(home.root()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn names_that_are_paths_or_hidden_make_no_key() {
        let (_dir, home) = home();
        for name in ["", ".", "../x", "a/b", ".hidden", "a b", &"x".repeat(65)] {
            assert!(create_key(&home, name).is_err(), "{name:?}");
        }
    }
}
