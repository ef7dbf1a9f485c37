//! The JSON of an image, in the order of the specification's own examples (image-spec 1.1.0: `manifest.md`, `image-index.md`,
//! `config.md`, `image-layout.md`), and the manifest of `docker save`, which older Docker reads instead.

use std::collections::BTreeMap;

use base::Sha256;
use serde::Serialize;
use store::archive::Compression;

/// 1609459200 seconds after 1970, the time stamp of every archive entry.
pub(super) const CREATED: &str = "2021-01-01T00:00:00Z";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The annotation by which an image is named in an archive.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that Docker and containerd read a whole name from.
const IMAGE_NAME: &str = "io.containerd.image.name";
const TITLE: &str = "org.opencontainers.image.title";

/// The bytes that are written and hashed.
pub(super) fn bytes(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists are always JSON")
}

/// The file that says what kind of directory this is.
pub(super) fn layout() -> Vec<u8> {
    br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()
}

/// Where a blob lies in the image.
pub(super) fn blob_path(sha256: &Sha256) -> String {
    format!("blobs/sha256/{sha256}")
}

/// The machine's architecture as Go names it, which is what the specification asks for.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(sha256: &Sha256) -> String {
    format!("sha256:{sha256}")
}

/// What kind of content has this digest and this size.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Serialize)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

impl Descriptor {
    fn of(media_type: &'static str, bytes: &[u8]) -> Self {
        Self {
            media_type,
            digest: digest(&Sha256::of(bytes)),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// Of a configuration.
    pub fn config(bytes: &[u8]) -> Self {
        Self::of(CONFIG, bytes)
    }

    /// Of a manifest.
    pub fn manifest(bytes: &[u8]) -> Self {
        Self::of(MANIFEST, bytes)
    }

    /// Of a layer.
    pub fn layer(compression: Compression, sha256: &Sha256, size: u64, title: &str) -> Self {
        let media_type = match compression {
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
        };
        Self {
            media_type,
            digest: digest(sha256),
            size,
            annotations: BTreeMap::from([(TITLE, title.to_owned())]),
            platform: None,
        }
    }
}

/// Configuration and layers of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Manifest {
    pub const fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST,
            config,
            layers,
        }
    }
}

/// The images of a file: one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u8,
    media_type: &'static str,
    manifests: [Descriptor; 1],
}

impl Index {
    pub fn new(mut manifest: Descriptor, reference: Option<&str>) -> Self {
        manifest.platform = Some(Platform {
            architecture: architecture(),
            os: "linux",
        });
        if let Some(reference) = reference {
            let tag = reference.rsplit_once(':').map_or(reference, |(_, tag)| tag);
            manifest.annotations = BTreeMap::from([
                (REF_NAME, tag.to_owned()),
                (IMAGE_NAME, reference.to_owned()),
            ]);
        }
        Self {
            schema_version: 2,
            media_type: INDEX,
            manifests: [manifest],
        }
    }
}

/// What the image is run as, and of what it is made.
#[derive(Debug, Serialize)]
pub(super) struct Config {
    pub created: &'static str,
    pub architecture: &'static str,
    pub os: &'static str,
    pub config: Execution,
    pub rootfs: RootFs,
    pub history: Vec<History>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Execution {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct RootFs {
    r#type: &'static str,
    diff_ids: Vec<String>,
}

impl RootFs {
    pub fn new<'a>(diff_ids: impl Iterator<Item = &'a Sha256>) -> Self {
        Self {
            r#type: "layers",
            diff_ids: diff_ids.map(digest).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct History {
    created: &'static str,
    created_by: String,
}

impl History {
    pub fn new(title: &str) -> Self {
        Self {
            created: CREATED,
            created_by: format!("p2pkgs: {title}"),
        }
    }
}

/// An entry of `manifest.json`, as `docker save` writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LegacyManifest {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl LegacyManifest {
    pub fn new<'a>(
        config: &Sha256,
        reference: Option<&str>,
        layers: impl Iterator<Item = &'a Sha256>,
    ) -> Self {
        Self {
            config: blob_path(config),
            repo_tags: reference.map(str::to_owned).into_iter().collect(),
            layers: layers.map(blob_path).collect(),
        }
    }
}
