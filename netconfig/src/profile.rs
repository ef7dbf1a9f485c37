//! The sections of a configuration as typed values, and the four profiles that come with the program.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base::PublicKey;
use toml::Value;

use crate::ConfigError;
use crate::key::{Key, Kind, MIRROR_PREFIX, parse_size};
use crate::layer::{Layered, Setting};

/// Names of the profiles that come with the program.
pub const PROFILES: [&str; 4] = ["public", "lan", "private", "offline"];

/// Where package caches may lie.
const CACHE_SCHEMES: [&str; 5] = ["http", "https", "file", "ipfs", "ipns"];

/// The text of a built-in profile.
pub fn profile_text(name: &str) -> Option<&'static str> {
    match name {
        "public" => Some(include_str!("../profiles/public.toml")),
        "lan" => Some(include_str!("../profiles/lan.toml")),
        "private" => Some(include_str!("../profiles/private.toml")),
        "offline" => Some(include_str!("../profiles/offline.toml")),
        _ => None,
    }
}

/// The part a node plays in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtMode {
    /// Answers questions and is found by others.
    Server,
    /// Only asks.
    Client,
}

/// What a daemon lets others find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Nothing.
    None,
    /// What was built, published or added here.
    Built,
    /// That, and what was fetched.
    All,
}

/// Whose earlier outputs spare bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deltas {
    /// Nobody's: outputs come as a whole.
    None,
    /// Those of peers outside of the local network, where bytes cost more than processors.
    Far,
    /// Those of all peers.
    All,
}

/// Section `[network]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Whether there is a network at all.
    pub enabled: bool,
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs of the first peers, with their peer ids.
    pub bootstrap: Vec<String>,
    /// Part in the DHT of the daemon.
    pub dht_mode: DhtMode,
    /// Protocol name of the DHT.
    pub dht_protocol: String,
    /// What the daemon announces.
    pub announce: Announced,
    /// Whether private addresses are announced.
    pub announce_private: bool,
    /// File of the swarm key, if the network is private.
    pub swarm_key: Option<String>,
    /// File of the group's key, if what this home looks for and has is only its group's business.
    pub group_key: Option<String>,
    /// Whether peers of the local network are found by multicast DNS.
    pub mdns: bool,
    /// Whom outputs may come from as what changed since an earlier one.
    pub deltas: Deltas,
    /// Whether the daemon finds out if it can be reached, and asks relays to stand in for it while it cannot.
    pub nat_traversal: bool,
    /// Multiaddrs of relays to ask first, with their peer ids.
    pub relays: Vec<String>,
    /// Whether the daemon relays first words for others.
    pub relay_service: bool,
}

/// Section `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Addresses of the daemon's HTTP door; none is no door.
    pub listen: Vec<SocketAddr>,
    /// Whether the local network may read the status page and the metrics.
    pub pages_to_network: bool,
}

/// Section `[gateways]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// Trustless gateways, asked after peers.
    pub urls: Vec<String>,
}

/// Section `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in total.
    pub connections: u32,
    /// Connections with one peer.
    pub connections_per_peer: u32,
    /// Bytes a second sent to peers; `None` is no limit.
    pub upload_bytes_per_second: Option<u64>,
    /// Bytes a second fetched from outside the local network; `None` is no limit.
    pub download_bytes_per_second: Option<u64>,
    /// Memory above which no connection is accepted.
    pub memory_bytes: u64,
}

/// Section `[builds]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builds {
    /// Memory that one build may take, in bytes; `None` is what suits the machine.
    pub memory_bytes: Option<u64>,
    /// Processes and threads that one build may run at once.
    pub processes: u32,
}

/// Section `[store]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Most bytes the store may hold; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of the disk that are left free.
    pub keep_free_bytes: u64,
}

/// Section `[deadlines]`, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// One connection attempt.
    pub dial_secs: u64,
    /// One search in the DHT.
    pub lookup_secs: u64,
    /// From asking to the first byte.
    pub first_byte_secs: u64,
    /// Without progress.
    pub stall_secs: u64,
    /// One file.
    pub total_secs: u64,
}

/// Section `[sources]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Whether peers are asked for sources.
    pub peers: bool,
    /// Whether URLs and mirrors are tried.
    pub urls: bool,
    /// Further base URLs of mirrors by name.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

/// Section `[caches]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caches {
    /// URLs of package caches, each of a scheme that we know.
    pub urls: Vec<String>,
}

/// Section `[trust]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// How many signers must agree.
    pub threshold: usize,
    /// Trusted keys named in the configuration.
    pub keys: Vec<PublicKey>,
}

impl Layered {
    /// The section `[network]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn network(&self) -> Result<Network, ConfigError> {
        let file = |key| Ok(Some(self.text(key)?).filter(|file| !file.is_empty()));
        Ok(Network {
            enabled: self.bool("network.enabled")?,
            listen: self.multiaddrs("network.listen")?,
            bootstrap: self.multiaddrs("network.bootstrap")?,
            dht_mode: self.dht_mode()?,
            dht_protocol: self.protocol("network.dht-protocol")?,
            announce: self.announce()?,
            announce_private: self.bool("network.announce-private")?,
            swarm_key: file("network.swarm-key")?,
            group_key: file("network.group-key")?,
            mdns: self.bool("network.mdns")?,
            deltas: self.deltas()?,
            nat_traversal: self.bool("network.nat-traversal")?,
            relays: self.multiaddrs("network.relays")?,
            relay_service: self.bool("network.relay-service")?,
        })
    }

    /// The section `[http]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn http(&self) -> Result<Http, ConfigError> {
        const KEY: &str = "http.listen";
        let listen = self.texts(KEY)?;
        let parsed: Result<_, _> = listen.iter().map(|text| text.parse()).collect();
        match parsed {
            Ok(listen) => Ok(Http {
                listen,
                pages_to_network: self.bool("http.pages-to-network")?,
            }),
            Err(_) => Err(wrong(
                KEY,
                "a list of addresses such as \"127.0.0.1:8421\"",
                self.get(KEY)?,
            )),
        }
    }

    /// The section `[gateways]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn gateways(&self) -> Result<Gateways, ConfigError> {
        const KEY: &str = "gateways.urls";
        let urls = self.texts(KEY)?;
        let is_web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if urls.iter().all(is_web) {
            return Ok(Gateways { urls });
        }
        Err(wrong(
            KEY,
            "a list of URLs such as \"https://gateway.example.org\"",
            self.get(KEY)?,
        ))
    }

    /// The section `[limits]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn limits(&self) -> Result<Limits, ConfigError> {
        let upload = self.size("limits.upload-bytes-per-second")?;
        let download = self.size("limits.download-bytes-per-second")?;
        Ok(Limits {
            connections: self.count_from_one("limits.connections")?,
            connections_per_peer: self.count_from_one("limits.connections-per-peer")?,
            upload_bytes_per_second: (upload > 0).then_some(upload),
            download_bytes_per_second: (download > 0).then_some(download),
            memory_bytes: self.size("limits.memory-bytes")?,
        })
    }

    /// The section `[builds]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn builds(&self) -> Result<Builds, ConfigError> {
        let memory = self.size("builds.memory")?;
        Ok(Builds {
            memory_bytes: (memory > 0).then_some(memory),
            processes: self.count_from_one("builds.processes")?,
        })
    }

    /// The section `[store]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn store(&self) -> Result<StoreLimits, ConfigError> {
        let quota = self.size("store.quota")?;
        Ok(StoreLimits {
            quota_bytes: (quota > 0).then_some(quota),
            keep_free_bytes: self.size("store.keep-free")?,
        })
    }

    /// The section `[deadlines]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn deadlines(&self) -> Result<Deadlines, ConfigError> {
        Ok(Deadlines {
            dial_secs: self.count_from_one("deadlines.dial-secs")?.into(),
            lookup_secs: self.count_from_one("deadlines.lookup-secs")?.into(),
            first_byte_secs: self.count_from_one("deadlines.first-byte-secs")?.into(),
            stall_secs: self.count_from_one("deadlines.stall-secs")?.into(),
            total_secs: self.count_from_one("deadlines.total-secs")?.into(),
        })
    }

    /// The section `[sources]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn sources(&self) -> Result<Sources, ConfigError> {
        let mut mirrors = BTreeMap::new();
        for (name, setting) in self.below(MIRROR_PREFIX) {
            let key = format!("{MIRROR_PREFIX}{name}");
            mirrors.insert(name.to_owned(), texts_of(&key, setting)?);
        }
        let (peers, urls) = (self.bool("sources.peers")?, self.bool("sources.urls")?);
        Ok(Sources {
            peers,
            urls,
            mirrors,
        })
    }

    /// The section `[caches]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn caches(&self) -> Result<Caches, ConfigError> {
        const KEY: &str = "caches.urls";
        let urls = self.texts(KEY)?;
        let is_cache = |url: &String| {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            CACHE_SCHEMES.contains(&scheme)
        };
        if urls.iter().all(is_cache) {
            return Ok(Caches { urls });
        }
        let expected = "a list of `http://`, `https://`, `file://`, `ipfs://` or `ipns://` URLs";
        Err(wrong(KEY, expected, self.get(KEY)?))
    }

    /// The section `[trust]`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that cannot be used.
    pub fn trust(&self) -> Result<Trust, ConfigError> {
        let setting = self.get("trust.keys")?;
        let keys = texts_of("trust.keys", setting)?
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| {
                wrong(
                    "trust.keys",
                    "a list of keys such as \"ed25519:…\"",
                    setting,
                )
            })?;
        let threshold = self.count_from_one("trust.threshold")?;
        Ok(Trust {
            threshold: usize::try_from(threshold).unwrap_or(usize::MAX),
            keys,
        })
    }

    fn bool(&self, key: &'static str) -> Result<bool, ConfigError> {
        let setting = self.get(key)?;
        setting
            .value
            .as_bool()
            .ok_or_else(|| wrong_kind(key, setting))
    }

    fn text(&self, key: &'static str) -> Result<String, ConfigError> {
        let setting = self.get(key)?;
        setting
            .value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| wrong_kind(key, setting))
    }

    fn texts(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        texts_of(key, self.get(key)?)
    }

    /// Multiaddrs are parsed by `node`; here only their shape is checked, so that the message can name the key.
    fn multiaddrs(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        let addrs = self.texts(key)?;
        if addrs.iter().any(|addr| !addr.starts_with('/')) {
            return Err(wrong(
                key,
                "a list of multiaddrs, each starting with `/`",
                self.get(key)?,
            ));
        }
        Ok(addrs)
    }

    fn protocol(&self, key: &'static str) -> Result<String, ConfigError> {
        let text = self.text(key)?;
        if text.starts_with('/') {
            return Ok(text);
        }
        Err(wrong(
            key,
            "a protocol name that starts with `/`",
            self.get(key)?,
        ))
    }

    fn dht_mode(&self) -> Result<DhtMode, ConfigError> {
        const KEY: &str = "network.dht-mode";
        match self.text(KEY)?.as_str() {
            "server" => Ok(DhtMode::Server),
            "client" => Ok(DhtMode::Client),
            _ => Err(wrong(KEY, "`server` or `client`", self.get(KEY)?)),
        }
    }

    fn deltas(&self) -> Result<Deltas, ConfigError> {
        const KEY: &str = "network.deltas";
        match self.text(KEY)?.as_str() {
            "none" => Ok(Deltas::None),
            "far" => Ok(Deltas::Far),
            "all" => Ok(Deltas::All),
            _ => Err(wrong(KEY, "`none`, `far` or `all`", self.get(KEY)?)),
        }
    }

    fn announce(&self) -> Result<Announced, ConfigError> {
        const KEY: &str = "network.announce";
        match self.text(KEY)?.as_str() {
            "none" => Ok(Announced::None),
            "built" => Ok(Announced::Built),
            "all" => Ok(Announced::All),
            _ => Err(wrong(KEY, "`none`, `built` or `all`", self.get(KEY)?)),
        }
    }

    fn count_from_one(&self, key: &'static str) -> Result<u32, ConfigError> {
        let setting = self.get(key)?;
        let number = setting
            .value
            .as_integer()
            .ok_or_else(|| wrong_kind(key, setting))?;
        match u32::try_from(number) {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(wrong(key, "a whole number from 1 to 4294967295", setting)),
        }
    }

    fn size(&self, key: &'static str) -> Result<u64, ConfigError> {
        let setting = self.get(key)?;
        let size = match &setting.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => parse_size(text),
            _ => None,
        };
        size.ok_or_else(|| wrong_kind(key, setting))
    }
}

fn texts_of(key: &str, setting: &Setting) -> Result<Vec<String>, ConfigError> {
    let items = setting
        .value
        .as_array()
        .ok_or_else(|| wrong_kind(key, setting))?;
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| wrong_kind(key, setting))
}

fn wrong_kind(key: &str, setting: &Setting) -> ConfigError {
    wrong(
        key,
        Key::named(key).map_or(Kind::Text, |k| k.kind).expected(),
        setting,
    )
}

fn wrong(key: &str, expected: &str, setting: &Setting) -> ConfigError {
    ConfigError::Value {
        key: key.into(),
        expected: expected.into(),
        got: setting.value.to_string(),
        origin: setting.origin.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{KEYS, Layer, Origin};

    fn profile(name: &str) -> Layered {
        Layered::new([Layer::profile(name).unwrap()])
    }

    #[test]
    fn every_profile_sets_every_key_and_nothing_else() {
        let mut known: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        known.remove("profile");
        for name in PROFILES {
            let layered = profile(name);
            let set: BTreeSet<_> = layered.settings().map(|(key, _)| key).collect();
            assert_eq!(set, known, "profile {name}");
            assert!(layered.warnings().is_empty() && layered.faults().is_empty());
        }
    }

    #[test]
    fn every_key_of_a_profile_stands_below_a_comment() {
        for name in PROFILES {
            let lines: Vec<_> = profile_text(name).unwrap().lines().collect();
            for key in KEYS.iter().filter(|key| key.name != "profile") {
                let last = key.name.rsplit('.').next().unwrap();
                let at = lines
                    .iter()
                    .position(|l| l.starts_with(&format!("{last} = ")))
                    .unwrap();
                let documented = lines[..at].iter().rev().take(2).any(|l| l.starts_with('#'));
                assert!(documented, "{} in profile {name}", key.name);
            }
        }
    }

    #[test]
    fn every_profile_can_be_used_as_it_is() {
        for name in PROFILES {
            let layered = profile(name);
            let network = layered.network().unwrap();
            assert_eq!(network.enabled, name != "offline");
            assert_eq!(network.bootstrap.is_empty(), name != "public");
            assert_eq!(network.swarm_key.is_some(), name == "private");
            layered.limits().unwrap();
            let (quota_bytes, keep_free_bytes) = (None, 1 << 30);
            assert_eq!(
                layered.store().unwrap(),
                StoreLimits {
                    quota_bytes,
                    keep_free_bytes
                }
            );
            let (memory_bytes, processes) = (None, 8192);
            assert_eq!(
                layered.builds().unwrap(),
                Builds {
                    memory_bytes,
                    processes
                }
            );
            layered.deadlines().unwrap();
            layered.sources().unwrap();
            layered.caches().unwrap();
            assert_eq!(
                layered.trust().unwrap(),
                Trust {
                    threshold: 1,
                    keys: Vec::new()
                }
            );
        }
        assert!(!profile("public").network().unwrap().announce_private);
        assert!(
            profile("public")
                .limits()
                .unwrap()
                .upload_bytes_per_second
                .is_some()
        );
        assert!(Layer::profile("publik").is_err());
    }

    #[test]
    fn values_of_the_wrong_kind_or_range_are_refused_with_key_and_layer() {
        let refused = |text: &str| {
            let layer = Layer::from_toml(&Origin::File("c.toml".into()), text);
            let layered = Layered::new([Layer::built_in(), layer]);
            [
                layered.network().err(),
                layered.limits().err(),
                layered.store().err(),
                layered.sources().err(),
                layered.trust().err(),
            ]
            .into_iter()
            .flatten()
            .map(|e| e.to_string())
            .collect::<Vec<_>>()
        };
        for (text, key) in [
            ("network.enabled = 1", "network.enabled"),
            ("network.listen = [\"127.0.0.1:4001\"]", "network.listen"),
            ("network.listen = [1]", "network.listen"),
            ("network.dht-mode = \"both\"", "network.dht-mode"),
            ("network.announce = \"some\"", "network.announce"),
            ("network.deltas = true", "network.deltas"),
            ("network.dht-protocol = \"kad\"", "network.dht-protocol"),
            ("limits.connections = 0", "limits.connections"),
            ("limits.connections = -4", "limits.connections"),
            ("limits.memory-bytes = \"a lot\"", "limits.memory-bytes"),
            ("store.quota = \"a lot\"", "store.quota"),
            ("store.keep-free = true", "store.keep-free"),
            ("sources.mirrors.debian = \"x\"", "sources.mirrors.debian"),
            ("trust.keys = [\"ed25519:00\"]", "trust.keys"),
        ] {
            let errors = refused(text);
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert!(
                errors[0].starts_with(&format!("`{key}` must be ")),
                "{errors:?}"
            );
            assert!(errors[0].contains("`c.toml` says "), "{errors:?}");
        }
    }
}
