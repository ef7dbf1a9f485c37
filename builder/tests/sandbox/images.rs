//! OCI images and bills of materials.

use std::collections::BTreeMap;
use std::io::Read as _;

use base::Sha256;
use builder::testing::World;
use builder::{Image, ImageSettings, Input, sbom};
use recipe::{Graph, PackageId};
use serde_json::Value;

/// A program, what it needs when it runs, and the closure of both.
fn built() -> Option<(World, Graph, Vec<PackageId>, Vec<Input>)> {
    let mut world = World::new()?;
    world.package(
        "data",
        "mkdir $DESTDIR/share; echo data >$DESTDIR/share/data",
    );
    world.package_from(
        "tool",
        "mkdir $DESTDIR/bin; echo tool >$DESTDIR/bin/tool",
        "../seed\n",
        "../data\n",
    );
    world.add_source("tool", "tool-1.2.tar.gz", b"not unpacked");
    let (graph, ids) = world.graph(&["tool"]);
    let report = world.realise(&["tool"]).unwrap();
    let inputs = report.closure(&graph, &ids).unwrap();
    Some((world, graph, ids, inputs))
}

fn image(world: &World, graph: &Graph, roots: &[PackageId], inputs: &[Input]) -> Vec<u8> {
    let settings = ImageSettings {
        reference: Some("example/tool:1.2".into()),
        entrypoint: vec!["/bin/tool".into(), "--quiet".into()],
        env: vec![("LANG".into(), "C".into()), ("PATH".into(), "/bin".into())],
        ..ImageSettings::default()
    };
    let image = Image {
        store: &world.store,
        graph,
        roots,
        inputs,
        settings: &settings,
        scratch: &world.scratch(),
    };
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    bytes
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, bytes)
    };
    tar.entries().unwrap().map(read).collect()
}

/// What a descriptor names, checked as a registry does.
fn blob<'f>(files: &'f BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'f [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let bytes = &files[&format!("blobs/sha256/{hex}")];
    assert_eq!(Sha256::of(bytes).to_hex(), hex);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

#[test]
fn an_image_holds_each_package_as_the_layer_that_its_builder_signed() {
    let Some((world, graph, ids, inputs)) = built() else {
        return;
    };
    let files = files(&image(&world, &graph, &ids, &inputs));
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = json(&files["index.json"]);
    let named = &index["manifests"][0];
    assert_eq!(
        named["annotations"]["org.opencontainers.image.ref.name"],
        "1.2"
    );
    let manifest = json(blob(&files, named));
    let config = json(blob(&files, &manifest["config"]));
    assert_eq!(
        config["config"]["Entrypoint"],
        serde_json::json!(["/bin/tool", "--quiet"])
    );
    assert_eq!(
        config["config"]["Env"],
        serde_json::json!(["LANG=C", "PATH=/bin"])
    );
    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(
        (layers.len(), diff_ids.len()),
        (inputs.len() + 2, layers.len())
    );
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let inner = store::archive::inner(blob(&files, layer), &Default::default()).unwrap();
        assert_eq!(*diff_id, format!("sha256:{}", inner.sha256));
    }
    for (layer, input) in layers[1..].iter().zip(&inputs) {
        assert_eq!(layer["digest"], format!("sha256:{}", input.blob.sha256));
        assert_eq!(
            layer["annotations"]["org.opencontainers.image.title"],
            input.name
        );
    }
    let bill = store::archive::list(blob(&files, layers.last().unwrap()), &Default::default());
    assert_eq!(bill.unwrap()[0].path, b"var/lib/db/sbom/tool.spdx.json");
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn the_bytes_of_an_image_depend_on_packages_and_settings_alone() {
    let Some((world, graph, ids, inputs)) = built() else {
        return;
    };
    let reversed: Vec<_> = inputs.iter().rev().cloned().collect();
    let first = image(&world, &graph, &ids, &inputs);
    assert!(first == image(&world, &graph, &ids, &reversed));
}

#[test]
fn an_image_of_many_packages_has_no_more_layers_than_docker_takes() {
    let Some((world, graph, ids, inputs)) = built() else {
        return;
    };
    let many: Vec<_> = (0..130)
        .map(|n| Input {
            name: format!("package-{n:03}"),
            blob: inputs[n % inputs.len()].blob.clone(),
        })
        .collect();
    let files = files(&image(&world, &graph, &ids, &many));
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 103);
    let shared = &files[layers[101].as_str().unwrap()];
    let entries = store::archive::list(&shared[..], &Default::default()).unwrap();
    assert!(entries.iter().any(|entry| entry.path == b"bin/tool"));
    assert!(entries.iter().any(|entry| entry.path == b"share/data"));
    assert!(world.left_in_scratch().is_empty());
}

#[test]
fn a_file_that_would_remove_another_one_in_an_image_is_refused() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.package(
        "odd",
        "mkdir $DESTDIR/share; echo >$DESTDIR/share/.wh.passwd",
    );
    let (graph, ids) = world.graph(&["odd"]);
    let report = world.realise(&["odd"]).unwrap();
    let inputs = report.closure(&graph, &ids).unwrap();
    let image = Image {
        store: &world.store,
        graph: &graph,
        roots: &ids,
        inputs: &inputs,
        settings: &ImageSettings::default(),
        scratch: &world.scratch(),
    };
    let error = image.write(std::io::sink()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("share/.wh.passwd"), "{cause}");
}

#[test]
fn a_bill_of_materials_goes_down_to_tarballs_and_seeds() {
    let Some((_world, graph, ids, inputs)) = built() else {
        return;
    };
    let bill: Value = serde_json::from_slice(&sbom(&graph, &ids, &inputs)).unwrap();
    assert_eq!(bill["spdxVersion"], "SPDX-2.3");
    let packages = bill["packages"].as_array().unwrap();
    let of = |name: &str, source: bool| {
        let is_it = |p: &&Value| p["name"] == name && p["packageFileName"].is_null() != source;
        packages.iter().find(is_it).unwrap()
    };
    let (tool, data, seed) = (of("tool", false), of("data", false), of("seed", false));
    let tarball = of("tool", true);
    assert_eq!(tool["versionInfo"], "1.2");
    assert_eq!(
        tarball["checksums"][0]["checksumValue"],
        Sha256::of(b"not unpacked").to_hex()
    );
    assert!(seed["comment"].as_str().unwrap().contains("a seed"));
    let related = |from: &Value, kind: &str, to: &Value| {
        bill["relationships"].as_array().unwrap().iter().any(|r| {
            r["spdxElementId"] == from["SPDXID"]
                && r["relationshipType"] == kind
                && r["relatedSpdxElement"] == to["SPDXID"]
        })
    };
    assert!(related(tool, "DEPENDS_ON", data));
    assert!(related(tool, "GENERATED_FROM", tarball));
    assert!(related(seed, "BUILD_DEPENDENCY_OF", tool));
    assert!(related(seed, "BUILD_DEPENDENCY_OF", data));
    assert_eq!(bill["relationships"][0]["relationshipType"], "DESCRIBES");
}
