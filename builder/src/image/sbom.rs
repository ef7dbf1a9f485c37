//! The bill of materials: what packages are made of, down to the seeds and the tarballs, as SPDX 2.3 in JSON.
//!
//! Its bytes depend on the packages alone: it has no date but that of archive entries, and its name in the world
//! (`documentNamespace`) is the digest of what it tells of. Recipes say nothing about licences, so it says `NOASSERTION`.

use std::collections::{BTreeMap, BTreeSet};

use base::Hasher;
use recipe::{Graph, PackageId, Recipe, Release, Source, SourceUrl};
use serde::Serialize;

use super::json::{self, CREATED};
use crate::root::Input;

const UNKNOWN: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// The bill of materials of packages and of everything that they were built from. `outputs` are those whose bytes are known:
/// the packages themselves and what they need at run time.
pub fn sbom(graph: &Graph, roots: &[PackageId], outputs: &[Input]) -> Vec<u8> {
    let outputs: BTreeMap<&str, &Input> = outputs.iter().map(|i| (i.name.as_str(), i)).collect();
    let all = everything(graph, roots);
    let mut bill = Bill {
        graph,
        packages: Vec::new(),
        relationships: Vec::new(),
    };
    let name = graph.name(roots[0]);
    for id in roots {
        bill.relate(DOCUMENT.to_owned(), "DESCRIBES", bill.spdx_id(*id));
    }
    for id in &all {
        bill.add(*id, outputs.get(graph.name(*id).as_str()).copied());
    }
    let mut hasher = Hasher::new();
    for id in &all {
        hasher.update(format!("{} {}\n", graph.name(*id), graph.pkghash(*id)).as_bytes());
    }
    let document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        spdx_id: DOCUMENT,
        name: name.to_string(),
        document_namespace: format!("urn:p2pkgs:closure:{}", hasher.finish()),
        creation_info: CreationInfo {
            created: CREATED,
            creators: [concat!("Tool: p2pkgs-", env!("CARGO_PKG_VERSION"))],
        },
        packages: bill.packages,
        relationships: bill.relationships,
    };
    json::bytes(&document)
}

/// The packages, what they need when they run, and all that any of these was built with; in the order of names.
fn everything(graph: &Graph, roots: &[PackageId]) -> Vec<PackageId> {
    let mut seen = BTreeSet::new();
    let mut open = roots.to_vec();
    while let Some(id) = open.pop() {
        if seen.insert((graph.name(id).clone(), id)) {
            open.extend(graph.run_deps(id));
            open.extend(graph.build_deps(id));
        }
    }
    seen.into_iter().map(|(_, id)| id).collect()
}

struct Bill<'a> {
    graph: &'a Graph,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

impl Bill<'_> {
    fn spdx_id(&self, id: PackageId) -> String {
        spdx_id(
            "Package",
            self.graph.name(id).as_str(),
            &self.graph.pkghash(id).to_string(),
        )
    }

    fn relate(&mut self, from: String, kind: &'static str, to: String) {
        self.relationships.push(Relationship {
            spdx_element_id: from,
            relationship_type: kind,
            related_spdx_element: to,
        });
    }

    fn add(&mut self, id: PackageId, output: Option<&Input>) {
        let graph = self.graph;
        let recipe = graph.recipe(id);
        let own = self.spdx_id(id);
        self.packages.push(package(
            &own,
            recipe,
            output,
            &graph.pkghash(id).to_string(),
        ));
        for dep in graph.run_deps(id) {
            self.relate(own.clone(), "DEPENDS_ON", self.spdx_id(*dep));
        }
        for dep in graph.build_deps(id) {
            self.relate(self.spdx_id(*dep), "BUILD_DEPENDENCY_OF", own.clone());
        }
        for source in recipe.sources() {
            let source_id = spdx_id("Source", &source.file, &source.sha256.to_hex());
            if !self.packages.iter().any(|p| p.spdx_id == source_id) {
                self.packages.push(tarball(&source_id, source));
            }
            self.relate(own.clone(), "GENERATED_FROM", source_id);
        }
    }
}

/// Letters, digits, dots and hyphens are what such a name may have; the digest keeps different things apart.
fn spdx_id(kind: &str, name: &str, digest: &str) -> String {
    const DIGEST_CHARACTERS: usize = 16;
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    format!("SPDXRef-{kind}-{name}-{}", &digest[..DIGEST_CHARACTERS])
}

fn package(spdx_id: &str, recipe: &Recipe, output: Option<&Input>, pkghash: &str) -> Package {
    let version = recipe
        .sources()
        .first()
        .and_then(|source| Release::parse(&source.file))
        .map(|release| release.version().to_string());
    let is_seed = recipe.seed().is_some();
    let sha256 = output
        .map(|input| input.blob.sha256)
        .or_else(|| recipe.seed().map(|seed| seed.sha256));
    let seed = if is_seed {
        "; a seed: taken as it is"
    } else {
        ""
    };
    let content = output.map_or_else(String::new, |i| format!("; content {}", i.blob.root));
    let version_part = version
        .as_deref()
        .map_or_else(String::new, |v| format!("@{v}"));
    let purl = format!("pkg:generic/{}{version_part}", recipe.name());
    Package {
        name: recipe.name().to_string(),
        spdx_id: spdx_id.to_owned(),
        version_info: version,
        package_file_name: None,
        download_location: UNKNOWN.to_owned(),
        files_analyzed: false,
        primary_package_purpose: None,
        checksums: sha256.map(checksum).into_iter().collect(),
        license_concluded: UNKNOWN,
        license_declared: UNKNOWN,
        copyright_text: UNKNOWN,
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl,
        }],
        comment: Some(format!("package hash {pkghash}{content}{seed}")),
    }
}

fn tarball(spdx_id: &str, source: &Source) -> Package {
    let url = source
        .urls
        .iter()
        .map(SourceUrl::to_string)
        .find(|url| url.starts_with("http"));
    let release = Release::parse(&source.file);
    let program = release
        .as_ref()
        .map(Release::program)
        .filter(|name| !name.is_empty());
    Package {
        name: program.unwrap_or(&source.file).to_owned(),
        spdx_id: spdx_id.to_owned(),
        version_info: release
            .as_ref()
            .map(|release| release.version().to_string()),
        package_file_name: Some(source.file.clone()),
        download_location: url.unwrap_or_else(|| UNKNOWN.to_owned()),
        files_analyzed: false,
        primary_package_purpose: Some("SOURCE"),
        checksums: vec![checksum(source.sha256)],
        license_concluded: UNKNOWN,
        license_declared: UNKNOWN,
        copyright_text: UNKNOWN,
        external_refs: Vec::new(),
        comment: None,
    }
}

fn checksum(sha256: base::Sha256) -> Checksum {
    Checksum {
        algorithm: "SHA256",
        checksum_value: sha256.to_hex(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    spdx_id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: &'static str,
    creators: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: String,
    #[serde(rename = "SPDXID")]
    spdx_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    download_location: String,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_declared: &'static str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}
