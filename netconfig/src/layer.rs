//! Layers of settings: built in < profile < system file < user file < environment < flags, merged key by key.
//!
//! Each value remembers the layer it came from, so that `config show --origin` and every error can name it. Values are
//! kept as TOML and checked only when their section is asked for: a bad key in one section never stops a command that
//! does not use it. For the same reason unknown keys are warnings, and a file that is no TOML is an error only then.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use crate::ConfigError;
use crate::key::{KEYS, Key, PROFILE};
use crate::nearest::nearest;
use crate::profile::profile_text;

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program itself.
    BuiltIn,
    /// A profile by name.
    Profile(String),
    /// A file by path.
    File(String),
    /// An environment variable by name.
    Env(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::Profile(name) => write!(f, "profile `{name}`"),
            Self::File(path) => write!(f, "`{path}`"),
            Self::Env(name) => write!(f, "${name}"),
            Self::Flag(name) => write!(f, "`{name}`"),
        }
    }
}

/// A value and who set it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The value as written.
    pub value: Value,
    /// The strongest layer that set it.
    pub origin: Origin,
}

/// Something in a layer that was not understood and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The unknown key.
    pub key: String,
    /// The known key it resembles.
    pub meant: Option<&'static str>,
    /// The layer.
    pub origin: Origin,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sets unknown key `{}`", self.origin, self.key)?;
        match self.meant {
            Some(meant) => write!(f, ", did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

/// The settings of one origin.
#[derive(Clone, Debug)]
pub struct Layer {
    settings: Vec<(String, Setting)>,
    fault: Option<ConfigError>,
}

impl Layer {
    /// A layer from a TOML text. Never fails: see the module's first lines.
    pub fn from_toml(origin: &Origin, text: &str) -> Self {
        match text.parse::<Table>() {
            Ok(table) => {
                let mut settings = Vec::new();
                flatten("", &table, origin, &mut settings);
                Self {
                    settings,
                    fault: None,
                }
            }
            Err(error) => {
                let message = error
                    .to_string()
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                let fault = ConfigError::Syntax {
                    origin: origin.clone(),
                    message,
                };
                Self {
                    settings: Vec::new(),
                    fault: Some(fault),
                }
            }
        }
    }

    /// What the program assumes where nobody says anything: the profile `lan`, because a profile file of the user that
    /// forgets a key must never join a public network by accident.
    pub fn built_in() -> Self {
        Self::from_toml(&Origin::BuiltIn, profile_text("lan").unwrap_or_default())
    }

    /// A profile by name.
    ///
    /// # Errors
    /// [`ConfigError::UnknownProfile`].
    pub fn profile(name: &str) -> Result<Self, ConfigError> {
        let text =
            profile_text(name).ok_or_else(|| ConfigError::UnknownProfile { name: name.into() })?;
        Ok(Self::from_toml(&Origin::Profile(name.into()), text))
    }

    /// The profile that this layer asks for with `profile = "…"`.
    pub fn profile_name(&self) -> Option<&str> {
        let found = self.settings.iter().rev().find(|(name, _)| name == PROFILE);
        found.and_then(|(_, setting)| setting.value.as_str())
    }

    /// The environment: `P2PKGS_SECTION_KEY`, and upstream's `PKG_MIRROR_IPFS=no` and `PKG_CACHE_URL`.
    pub fn from_env(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut settings = Vec::new();
        for (variable, text) in variables {
            let found = KEYS.iter().find(|key| key.env_name() == variable);
            let (key, value) = match (found, variable.as_str(), text.as_str()) {
                (Some(key), ..) => (key.name, key.kind.value_of_text(&text)),
                (None, "PKG_MIRROR_IPFS", "no") => ("sources.peers", Value::Boolean(false)),
                (None, "PKG_CACHE_URL", urls) => ("caches.urls", words(urls)),
                _ => continue,
            };
            settings.push((
                key.into(),
                Setting {
                    value,
                    origin: Origin::Env(variable),
                },
            ));
        }
        Self {
            settings,
            fault: None,
        }
    }

    /// A layer from flags: the flag's spelling, the key it sets, the text given.
    pub fn from_flags<'a>(flags: impl IntoIterator<Item = (&'a str, &'a str, String)>) -> Self {
        let settings = flags
            .into_iter()
            .filter_map(|(flag, key, text)| {
                let value = Key::named(key)?.kind.value_of_text(&text);
                Some((
                    key.into(),
                    Setting {
                        value,
                        origin: Origin::Flag(flag.into()),
                    },
                ))
            })
            .collect();
        Self {
            settings,
            fault: None,
        }
    }
}

fn words(text: &str) -> Value {
    let word = |word: &str| Value::String(word.to_owned());
    Value::Array(text.split_whitespace().map(word).collect())
}

fn flatten(prefix: &str, table: &Table, origin: &Origin, into: &mut Vec<(String, Setting)>) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            Value::Table(inner) if Key::named(&name).is_none() => {
                flatten(&format!("{name}."), inner, origin, into);
            }
            value => into.push((
                name,
                Setting {
                    value: value.clone(),
                    origin: origin.clone(),
                },
            )),
        }
    }
}

/// All layers as one.
#[derive(Clone, Debug, Default)]
pub struct Layered {
    settings: BTreeMap<String, Setting>,
    warnings: Vec<Warning>,
    faults: Vec<ConfigError>,
}

impl Layered {
    /// Merges layers, weakest first.
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        let mut merged = Self::default();
        for layer in layers {
            merged.faults.extend(layer.fault);
            for (name, setting) in layer.settings {
                merged.set(name, setting);
            }
        }
        merged
    }

    fn set(&mut self, name: String, setting: Setting) {
        if Key::named(&name).is_some() {
            self.settings.insert(name, setting);
        } else {
            let meant = nearest(&name, KEYS.iter().map(|key| key.name));
            self.warnings.push(Warning {
                key: name,
                meant,
                origin: setting.origin,
            });
        }
    }

    /// Every setting by its full name, sorted.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings
            .iter()
            .map(|(name, setting)| (name.as_str(), setting))
    }

    /// What was not understood.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Files that are no TOML at all.
    pub fn faults(&self) -> &[ConfigError] {
        &self.faults
    }

    /// One setting; the first broken file is an error, for nobody knows what it meant to say.
    pub(crate) fn get(&self, key: &'static str) -> Result<&Setting, ConfigError> {
        self.check_faults()?;
        self.settings.get(key).ok_or(ConfigError::Unset(key))
    }

    pub(crate) fn check_faults(&self) -> Result<(), ConfigError> {
        self.faults
            .first()
            .map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// The settings whose names start so.
    pub(crate) fn below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        self.settings()
            .filter_map(move |(name, s)| name.strip_prefix(prefix).map(|rest| (rest, s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Layer {
        Layer::from_toml(&Origin::File("config.toml".into()), text)
    }

    #[test]
    fn the_strongest_layer_wins_and_is_remembered() {
        let layered = Layered::new([
            Layer::built_in(),
            Layer::profile("public").unwrap(),
            file("[network]\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n[limits]\nconnections = 7\n"),
            Layer::from_env([("P2PKGS_LIMITS_CONNECTIONS".into(), "9".into())]),
            Layer::from_flags([("--listen", "network.listen", "/ip4/127.0.0.1/tcp/2".into())]),
        ]);
        let network = layered.network().unwrap();
        assert_eq!(network.listen, ["/ip4/127.0.0.1/tcp/2"]);
        assert_eq!(network.dht_protocol, "/ipfs/kad/1.0.0");
        assert_eq!(layered.limits().unwrap().connections, 9);
        let origin = |key| layered.get(key).unwrap().origin.to_string();
        assert_eq!(origin("network.listen"), "`--listen`");
        assert_eq!(origin("limits.connections"), "$P2PKGS_LIMITS_CONNECTIONS");
        assert_eq!(origin("trust.threshold"), "profile `public`");
        assert!(layered.warnings().is_empty());
    }

    #[test]
    fn an_unknown_key_warns_with_the_nearest_name() {
        let layered = Layered::new([
            Layer::built_in(),
            file("[network]\nlisen = []\n[new]\nx = 1\n"),
        ]);
        let warnings: Vec<_> = layered.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "`config.toml` sets unknown key `network.lisen`, did you mean `network.listen`?",
                "`config.toml` sets unknown key `new.x`",
            ]
        );
    }

    #[test]
    fn a_bad_key_in_one_section_leaves_the_others_usable() {
        let layered = Layered::new([Layer::built_in(), file("[trust]\nthreshold = \"many\"\n")]);
        assert!(layered.network().is_ok());
        assert_eq!(
            layered.trust().unwrap_err().to_string(),
            "`trust.threshold` must be a whole number, `config.toml` says \"many\""
        );
    }

    #[test]
    fn a_file_that_is_no_toml_fails_every_section_and_says_where() {
        let layered = Layered::new([Layer::built_in(), file("[network\n")]);
        let message = layered.limits().unwrap_err().to_string();
        assert!(
            message.starts_with("`config.toml` is not valid TOML"),
            "{message}"
        );
        assert!(message.contains("line 1"), "{message}");
        assert_eq!(layered.faults().len(), 1);
    }

    #[test]
    fn upstreams_variable_switches_peers_off_for_sources() {
        let env = Layer::from_env([("PKG_MIRROR_IPFS".into(), "no".into())]);
        assert!(
            !Layered::new([Layer::built_in(), env])
                .sources()
                .unwrap()
                .peers
        );
        let env = Layer::from_env([("PKG_MIRROR_IPFS".into(), "yes".into())]);
        assert!(
            Layered::new([Layer::built_in(), env])
                .sources()
                .unwrap()
                .peers
        );
    }
}
