//! Names of our own (IPNS): their keys in `names/NAME.key`, their records, and keeping them published.
//!
//! A name has a key of its own and not the node's, so that it can move to another machine, and not a builder's key, which
//! says something else when it signs.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use node::ipns::{IpnsName, IpnsRecord};
use node::{Client, Keypair, identity};
use store::Store;

use crate::error::{CmdResult, Failure};
use crate::heads;
use crate::home::{Home, private_dir};
use crate::keys;

/// The key that `name publish` makes on its first use.
pub const DEFAULT_NAME: &str = "default";
/// Where the keys lie in the home.
const FOLDER: &str = "names";
/// How long a record counts: as long as servers of the DHT keep it.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// How long others may go on using what they found without asking again (Kubo's default).
const TTL: Duration = Duration::from_secs(5 * 60);
/// How often a record is published again, so that servers that leave are replaced in time (Kubo's default).
pub const PUBLISH_EVERY: Duration = Duration::from_secs(4 * 3600);
/// How often the daemon looks for records that are due. New ones come from other processes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The key of that name, made if it is missing.
///
/// # Errors
/// When it cannot be read or made.
pub fn key(home: &Home, name: &str) -> CmdResult<Keypair> {
    let path = keys::key_file(home, FOLDER, name)?;
    home.create()?;
    private_dir(&home.path(FOLDER)).map_err(|e| {
        Failure::from(e).context(format!("cannot make `{}`", home.path(FOLDER).display()))
    })?;
    Ok(identity::load_or_create(&path)?)
}

/// A record that begins to count now.
///
/// # Errors
/// When there is too much to sign.
pub fn sign(key: &Keypair, value: &str, sequence: u64, now: SystemTime) -> CmdResult<IpnsRecord> {
    let expires = now + LIFETIME;
    Ok(IpnsRecord::sign(
        key,
        value.as_bytes(),
        sequence,
        expires,
        TTL,
    )?)
}

/// What was last said about a name, whether or not its time is over.
///
/// # Errors
/// When the store cannot say, or holds something else.
pub fn last_record(store: &Store, name: &IpnsName) -> CmdResult<Option<IpnsRecord>> {
    let Some(kept) = store.name_record(&name.to_bytes())? else {
        return Ok(None);
    };
    // At the beginning of time nothing had expired.
    let record = IpnsRecord::verify(name, &kept.record, SystemTime::UNIX_EPOCH)?;
    Ok(Some(record))
}

/// Publishes the records of own names whenever they are due, until the node ends.
pub async fn keep_published(home: Home, store: Store, client: Client) {
    loop {
        let (home, store) = (home.clone(), store.clone());
        let due = tokio::task::spawn_blocking(move || due(&home, &store, SystemTime::now())).await;
        for record in due.unwrap_or_default() {
            let name = *record.name();
            match client.publish_ipns(record).await {
                Ok(0) => tracing::debug!(%name, "no node of the DHT took the record yet"),
                Ok(nodes) => tracing::info!(%name, nodes, "published a name"),
                Err(node::NameError::Client(_)) => return,
                Err(error) => tracing::warn!(%name, %error, "cannot publish a name"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// New records of the own names that are due, and those of others whose trees this home has. A name that cannot be read does not stop the others.
fn due(home: &Home, store: &Store, now: SystemTime) -> Vec<IpnsRecord> {
    let names = match names(home) {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "cannot read the keys of names");
            return Vec::new();
        }
    };
    let renewed = names.iter().map(|name| renewed(home, store, name, now));
    let own = renewed.filter_map(|record| {
        record.unwrap_or_else(|failure| {
            tracing::warn!(error = failure.message(), "cannot renew a name");
            None
        })
    });
    own.chain(heads::due_records(home, store, now)).collect()
}

/// The same statement with a later end, if it is time for that.
fn renewed(
    home: &Home,
    store: &Store,
    name: &str,
    now: SystemTime,
) -> CmdResult<Option<IpnsRecord>> {
    let key = key(home, name)?;
    let name = IpnsName::of(&key.public());
    let Some(last) = last_record(store, &name)? else {
        return Ok(None);
    };
    let published = store
        .name_record(&name.to_bytes())?
        .and_then(|kept| kept.published_unix_secs)
        .map(|secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
    if published.is_some_and(|published| published + PUBLISH_EVERY > now) {
        return Ok(None);
    }
    let value = String::from_utf8_lossy(last.value());
    sign(&key, &value, last.sequence(), now).map(Some)
}

/// The names for which there are keys.
fn names(home: &Home) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(home.path(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".key")?.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_due_at_first_and_again_after_four_hours_with_a_later_end() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path())).unwrap();
        let store = Store::open(&home.path("store")).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |hours: u64| now + Duration::from_secs(hours * 3600);
        let key = key(&home, "default").unwrap();
        assert!(due(&home, &store, now).is_empty(), "nothing was said yet");
        let record = sign(&key, "/ipfs/bafkqaaa", 3, now).unwrap();
        let name = record.name().to_bytes();
        store.keep_name_record(&name, 3, record.bytes()).unwrap();
        assert_eq!(due(&home, &store, now), std::slice::from_ref(&record));
        store
            .set_name_published(&name, record.bytes(), 1_800_000_000)
            .unwrap();
        assert!(due(&home, &store, at(3)).is_empty());
        let again = &due(&home, &store, at(100))[0];
        assert_eq!((again.sequence(), again.value()), (3, record.value()));
        assert_eq!(
            again.expires(),
            at(148),
            "although the last one has expired"
        );
    }

    #[test]
    fn a_damaged_key_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path())).unwrap();
        let store = Store::open(&home.path("store")).unwrap();
        let key = key(&home, "good").unwrap();
        fs::write(home.path("names/bad.key"), "nonsense").unwrap();
        let now = SystemTime::now();
        let record = sign(&key, "/ipfs/bafkqaaa", 0, now).unwrap();
        let name = record.name().to_bytes();
        store.keep_name_record(&name, 0, record.bytes()).unwrap();
        assert_eq!(due(&home, &store, now).len(), 1);
    }
}
