//! What every command is given: the options, the layered configuration, the home, the store and the terminal.
//!
//! Each part is opened when it is first asked for: `hash` works with a broken configuration and without a store, because
//! it never asks for them.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base::{PackageName, PkgHash};
use netconfig::{ConfigError, Layer, Layered, Mirrors, Network, Origin, StoreLimits};
use recipe::{Graph, System};
use store::{Limits, Store};
use trust::TrustPolicy;

use crate::args::Global;
use crate::believing::{self, Believer};
use crate::bench::unix_secs;
use crate::error::{CmdResult, Failure};
use crate::heads;
use crate::home::Home;
use crate::interrupt::Interrupt;
use crate::tree::{DiskTree, RememberingTree};
use crate::ui::Ui;

/// Settings for all users of the machine.
const SYSTEM_CONFIG: &str = "/etc/p2pkgs/config.toml";
/// The profile that is used when nobody names one.
const DEFAULT_PROFILE: &str = "public";
/// Largest configuration file that is read, in bytes; ours have below 4 kB.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// One command's world.
#[derive(Debug)]
pub struct Context {
    /// The terminal.
    pub ui: Ui,
    /// Whether the user wants to stop.
    pub interrupt: Interrupt,
    global: Global,
    /// Settings from the command's own flags: the flag, its key, its text.
    flags: Vec<(&'static str, &'static str, String)>,
    home: OnceCell<Home>,
    config: OnceCell<Layered>,
    store: OnceCell<Store>,
    download: OnceCell<node::Budget>,
    names: PackageNames,
    believer: OnceCell<Arc<Believer>>,
    anyone: Cell<bool>,
    /// Whether the tree's head was looked at.
    looked_for_head: Cell<bool>,
}

/// What packages are called that this command has to do with. What asks for a package by its hash alone finds here whom to
/// believe, as far as that depends on the name.
#[derive(Clone, Debug, Default)]
pub struct PackageNames(Arc<Mutex<HashMap<PkgHash, PackageName>>>);

impl PackageNames {
    /// The name, if this command has met the package.
    pub fn get(&self, pkghash: &PkgHash) -> Option<PackageName> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(pkghash).cloned()
    }

    fn add(&self, graph: &Graph) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.extend(
            graph
                .packages()
                .map(|id| (graph.pkghash(id), graph.name(id).clone())),
        );
    }
}

impl Context {
    /// As the command line says.
    pub fn new(global: Global, ui: Ui, interrupt: Interrupt) -> Self {
        let mut flags = Vec::new();
        if global.offline {
            flags.push(("--offline", "network.enabled", "false".to_owned()));
        }
        Self {
            ui,
            interrupt,
            global,
            flags,
            home: OnceCell::new(),
            config: OnceCell::new(),
            store: OnceCell::new(),
            download: OnceCell::new(),
            names: PackageNames::default(),
            believer: OnceCell::new(),
            anyone: Cell::new(false),
            looked_for_head: Cell::new(false),
        }
    }

    /// Adds a setting from a flag of the command, before the configuration is first asked for.
    pub fn set_flag(&mut self, flag: &'static str, key: &'static str, text: String) {
        self.flags.push((flag, key, text));
    }

    /// Whether the user wants this command to open no connection.
    pub const fn is_offline(&self) -> bool {
        self.global.offline
    }

    /// The home directory, which may not exist yet.
    ///
    /// # Errors
    /// When there is none.
    pub fn home(&self) -> CmdResult<&Home> {
        get_or_try(&self.home, || Home::find(self.global.home.as_deref()))
    }

    /// The package tree. Of one that was synced and whose head has expired the user is told, once.
    ///
    /// # Errors
    /// When there is none.
    pub fn tree(&self) -> CmdResult<DiskTree> {
        let tree = DiskTree::find(self.global.tree.as_deref())?;
        if !self.looked_for_head.replace(true)
            && let Ok(home) = self.home()
            && let Some(warning) = heads::expired_in(tree.root(), home, unix_secs())
        {
            self.ui.warn(warning);
        }
        Ok(tree)
    }

    /// What the named packages mean, with everything they need.
    ///
    /// # Errors
    /// When one of them is wrong, missing, or part of a cycle.
    pub fn graph(&self, tree: &mut DiskTree, names: &[PackageName]) -> CmdResult<Graph> {
        let mut remembering = RememberingTree::open(tree, self.home().ok(), SystemTime::now());
        remembering.expect(names);
        let graph = Graph::resolve(&mut remembering, names, &System::host());
        remembering.remember();
        let graph = graph?;
        self.names.add(&graph);
        Ok(graph)
    }

    /// The settings of all layers. Warnings are shown once.
    ///
    /// # Errors
    /// When a file cannot be read, or the profile is unknown. Bad values fail only the section they stand in.
    pub fn config(&self) -> CmdResult<&Layered> {
        get_or_try(&self.config, || {
            let config = self.load_config()?;
            for warning in config.warnings() {
                self.ui.warn(warning);
            }
            Ok(config)
        })
    }

    /// The settings as the files say now. What was read before stays what [`Self::config`] gives.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn read_config_again(&self) -> CmdResult<Layered> {
        self.load_config()
    }

    fn load_config(&self) -> CmdResult<Layered> {
        let system = file_layer(Path::new(SYSTEM_CONFIG))?;
        let user = match self.home()?.config_file() {
            Some(path) => file_layer(&path)?,
            None => None,
        };
        let asked = [&user, &system]
            .into_iter()
            .flatten()
            .find_map(Layer::profile_name);
        let profile = self
            .global
            .profile
            .as_deref()
            .or(asked)
            .unwrap_or(DEFAULT_PROFILE);
        let profile = profile_layer(profile)?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let flags = self
            .flags
            .iter()
            .map(|(flag, key, text)| (*flag, *key, text.clone()));
        let layers = [Some(Layer::built_in()), Some(profile), system, user];
        Ok(Layered::new(layers.into_iter().flatten().chain([
            Layer::from_env(environment),
            Layer::from_flags(flags),
        ])))
    }

    /// The section `[network]`.
    ///
    /// # Errors
    /// When one of its keys cannot be used.
    pub fn network(&self) -> CmdResult<Network> {
        Ok(self.config()?.network()?)
    }

    /// The mirrors of sources: the user's, the machine's own for Debian, the built-in ones.
    ///
    /// # Errors
    /// When the section `[sources]` cannot be used.
    pub fn mirrors(&self) -> CmdResult<Mirrors> {
        let mut mirrors = Mirrors::built_in();
        mirrors.prefer("debian", crate::apt::base_urls(Path::new("/etc/apt")));
        for (name, urls) in self.config()?.sources()?.mirrors {
            mirrors.prefer(&name, urls);
        }
        Ok(mirrors)
    }

    /// The store, made when it is missing.
    ///
    /// # Errors
    /// When it cannot be opened, or the section `[store]` cannot be used.
    pub fn store(&self) -> CmdResult<&Store> {
        get_or_try(&self.store, || {
            let limits = store_limits(self.config()?)?;
            let home = self.home()?;
            home.create()?;
            Ok(Store::open(&home.path("store"))?.with_limits(limits))
        })
    }

    /// What may be fetched per second: one limit for every door of this process.
    ///
    /// # Errors
    /// When the section `[limits]` cannot be used.
    pub fn download(&self) -> CmdResult<&node::Budget> {
        get_or_try(&self.download, || {
            let rate = self.config()?.limits()?.download_bytes_per_second;
            Ok(node::Budget::new(rate, std::time::Instant::now()))
        })
    }

    /// Whom we believe: own keys, those of `key trust`, those of the configuration.
    ///
    /// # Errors
    /// When one of the three cannot be read.
    pub fn trust(&self) -> CmdResult<TrustPolicy> {
        believing::policy(self.home()?, &self.config()?.trust()?, self.anyone.get())
    }

    /// The same for as long as this command runs: it takes in what is said of keys on the way.
    ///
    /// # Errors
    /// As [`Self::trust`].
    pub fn believer(&self) -> CmdResult<&Arc<Believer>> {
        get_or_try(&self.believer, || {
            let config = self.config()?.trust()?;
            let believer = Believer::new(
                self.home()?,
                config,
                self.anyone.get(),
                &self.ui,
                &self.interrupt,
            )?;
            Ok(Arc::new(believer))
        })
    }

    /// From now on [`Self::trust`] gives a policy that believes strangers whom nobody contradicts; says so.
    pub fn believe_anyone(&self) {
        self.anyone.set(true);
        self.ui.warn(
            "`--trust any`: what no trusted key vouches for is taken from whoever signed it, unless another contradicts",
        );
    }

    /// What packages are called that this command has to do with.
    pub const fn package_names(&self) -> &PackageNames {
        &self.names
    }
}

/// The section `[store]` as the store takes it.
///
/// # Errors
/// When the section cannot be used.
pub fn store_limits(config: &Layered) -> CmdResult<Limits> {
    let StoreLimits {
        quota_bytes,
        keep_free_bytes,
    } = config.store()?;
    Ok(Limits {
        quota_bytes,
        keep_free_bytes,
    })
}

/// As `OnceCell::get_or_try_init`, which is not stable.
fn get_or_try<T>(cell: &OnceCell<T>, make: impl FnOnce() -> CmdResult<T>) -> CmdResult<&T> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}

fn profile_layer(profile: &str) -> CmdResult<Layer> {
    if profile.contains('/') || profile.ends_with(".toml") {
        let layer = file_layer(Path::new(profile))?;
        return layer
            .ok_or_else(|| Failure::usage(format!("there is no profile file `{profile}`")));
    }
    Layer::profile(profile).map_err(|e: ConfigError| {
        Failure::from(e).hint("name a profile file by a path, such as `--profile ./my.toml`")
    })
}

fn file_layer(path: &Path) -> CmdResult<Option<Layer>> {
    let cannot =
        |e: io::Error| Failure::from(e).context(format!("cannot read `{}`", path.display()));
    let text = match fs::metadata(path) {
        Ok(meta) if meta.len() > CONFIG_BYTES_MAX => {
            return Err(Failure::usage(format!(
                "`{}` is too large for a configuration",
                path.display()
            )));
        }
        Ok(_) => fs::read_to_string(path).map_err(cannot)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot(e)),
    };
    Ok(Some(Layer::from_toml(
        &Origin::File(path.display().to_string()),
        &text,
    )))
}
