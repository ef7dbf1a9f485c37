//! Every configuration key there is, with the kind of value it takes.

use toml::Value;

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number, not negative.
    Count,
    /// A number of bytes, or a text such as `"10 MiB"`.
    Size,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
}

/// One configuration key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Section and name, joined by a dot.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: Kind,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

/// All keys in the order of the profile files. Keys of `sources.mirrors` are free names and not listed.
pub const KEYS: &[Key] = &[
    key(PROFILE, Kind::Text),
    key("network.enabled", Kind::Bool),
    key("network.listen", Kind::Texts),
    key("network.bootstrap", Kind::Texts),
    key("network.dht-mode", Kind::Text),
    key("network.dht-protocol", Kind::Text),
    key("network.announce", Kind::Text),
    key("network.announce-private", Kind::Bool),
    key("network.swarm-key", Kind::Text),
    key("network.group-key", Kind::Text),
    key("network.mdns", Kind::Bool),
    key("network.deltas", Kind::Text),
    key("network.nat-traversal", Kind::Bool),
    key("network.relays", Kind::Texts),
    key("network.relay-service", Kind::Bool),
    key("http.listen", Kind::Texts),
    key("http.pages-to-network", Kind::Bool),
    key("gateways.urls", Kind::Texts),
    key("limits.connections", Kind::Count),
    key("limits.connections-per-peer", Kind::Count),
    key("limits.upload-bytes-per-second", Kind::Size),
    key("limits.download-bytes-per-second", Kind::Size),
    key("limits.memory-bytes", Kind::Size),
    key("store.quota", Kind::Size),
    key("store.keep-free", Kind::Size),
    key("builds.memory", Kind::Size),
    key("builds.processes", Kind::Count),
    key("deadlines.dial-secs", Kind::Count),
    key("deadlines.lookup-secs", Kind::Count),
    key("deadlines.first-byte-secs", Kind::Count),
    key("deadlines.stall-secs", Kind::Count),
    key("deadlines.total-secs", Kind::Count),
    key("sources.peers", Kind::Bool),
    key("sources.urls", Kind::Bool),
    key("caches.urls", Kind::Texts),
    key("trust.threshold", Kind::Count),
    key("trust.keys", Kind::Texts),
];

/// The key that chooses the profile. It stands in the user's files, not in profiles.
pub(crate) const PROFILE: &str = "profile";
/// Start of the names below which every key is a mirror's name.
pub(crate) const MIRROR_PREFIX: &str = "sources.mirrors.";

impl Key {
    /// The key of that name.
    pub fn named(name: &str) -> Option<Self> {
        if name.starts_with(MIRROR_PREFIX) {
            return Some(key("sources.mirrors", Kind::Texts));
        }
        KEYS.iter().copied().find(|k| k.name == name)
    }

    /// The environment variable that sets the key: `network.dht-mode` is `P2PKGS_NETWORK_DHT_MODE`.
    pub fn env_name(&self) -> String {
        format!(
            "P2PKGS_{}",
            self.name.to_ascii_uppercase().replace(['.', '-'], "_")
        )
    }
}

impl Kind {
    /// Reads a value given as plain text, as in the environment and in flags. Whether it fits is checked when it is used.
    pub fn value_of_text(self, text: &str) -> Value {
        match self {
            Self::Bool => match text {
                "true" | "yes" | "1" => Value::Boolean(true),
                "false" | "no" | "0" => Value::Boolean(false),
                other => Value::String(other.into()),
            },
            Self::Count | Self::Size => text
                .parse()
                .map_or_else(|_| Value::String(text.into()), Value::Integer),
            Self::Text => Value::String(text.into()),
            Self::Texts => Value::Array(
                text.split_whitespace()
                    .map(|part| Value::String(part.into()))
                    .collect(),
            ),
        }
    }

    /// What such a value looks like, for error messages.
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Bool => "`true` or `false`",
            Self::Count => "a whole number",
            Self::Size => "a number of bytes or a size such as \"10 MiB\"",
            Self::Text => "a text",
            Self::Texts => "a list of texts",
        }
    }
}

/// Reads a size: a number and an optional unit `KiB`, `MiB`, `GiB`, `TiB`, or their decimal kin.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("12 MiB"), Some(12 << 20));
        assert_eq!(parse_size("3GB"), Some(3_000_000_000));
        for text in ["", "MiB", "1 potato", "-1", "1.5 MiB", "99999999999 TiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_key_has_its_own_environment_variable() {
        let names: std::collections::BTreeSet<_> = KEYS.iter().map(Key::env_name).collect();
        assert_eq!(names.len(), KEYS.len());
        assert!(names.contains("P2PKGS_NETWORK_DHT_MODE"));
    }
}
