//! A layer, and an OCI archive with it as its only one: bytes that depend on nothing but what goes in.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The files of the image, in the order in which they are added.
pub(super) struct Layer(Builder<Vec<u8>>);

/// What [`Image::archive`] puts together.
pub(super) struct Image<'a> {
    pub(super) names: &'a [String],
    pub(super) architecture: &'a str,
    pub(super) version: &'a str,
    pub(super) entrypoint: &'a str,
    pub(super) layer: Vec<u8>,
}

impl Layer {
    pub(super) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        add(
            &mut self.0,
            &format!("{path}/"),
            EntryType::Directory,
            mode,
            &[],
        )
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        add(&mut self.0, path, EntryType::Regular, mode, bytes)
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("cannot finish the layer")
    }
}

impl Image<'_> {
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let Self {
            names,
            architecture,
            version,
            entrypoint,
            layer,
        } = self;
        let mut archive = Builder::new(Vec::new());
        let mut put =
            |path: &str, bytes: &[u8]| add(&mut archive, path, EntryType::Regular, 0o644, bytes);
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [entrypoint],
                "Env": ["PATH=/"],
                "Labels": {
                    "org.opencontainers.image.title": "ringfence",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        });
        let config = bytes(&config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        });
        let manifest = bytes(&manifest)?;
        let named = names.iter().map(|name| {
            let mut entry = descriptor(MANIFEST, &manifest);
            // The first is what containerd reads, the second what others do.
            entry["annotations"] = json!({
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name,
            });
            entry
        });
        let index = json!({"schemaVersion": 2, "manifests": named.collect::<Vec<_>>()});

        put(
            "oci-layout",
            &bytes(&json!({"imageLayoutVersion": "1.0.0"}))?,
        )?;
        put("index.json", &bytes(&index)?)?;
        for blob in [&manifest, &config, layer] {
            let name = digest(blob).replace(':', "/");
            put(&format!("blobs/{name}"), blob)?;
        }
        archive.into_inner().context("cannot finish the archive")
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// An entry of nobody and no time.
fn add(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len().try_into()?);
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("cannot put {path} into an archive"))
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.write_all(b"\n")?;
    Ok(text)
}

/// As registries name what they hold.
fn digest(bytes: &[u8]) -> String {
    let digits: Vec<_> = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", digits.concat())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    fn image() -> Vec<u8> {
        let mut layer = Layer::new();
        layer.folder("tmp", 0o1777).unwrap();
        layer.file("ringfence", 0o755, b"a binary").unwrap();
        let names = ["localhost/a:1", "localhost/a:2"].map(str::to_owned);
        let image = Image {
            names: &names,
            architecture: "amd64",
            version: "1.2.3",
            entrypoint: "/ringfence",
            layer: layer.finish().unwrap(),
        };
        image.archive().unwrap()
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            assert_eq!(entry.header().uid().unwrap(), 0);
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_are_the_same_bytes() {
        assert_eq!(image(), image());
    }

    #[test]
    fn every_blob_is_what_its_name_says_and_every_descriptor_leads_to_one() {
        let entries = entries(&image());
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let bytes = &entries[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(super::digest(bytes), digest);
            assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
            bytes
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = json(&entries["index.json"]);
        let names = index["manifests"].as_array().unwrap().iter();
        let names: Vec<_> = names
            .map(|entry| &entry["annotations"]["io.containerd.image.name"])
            .collect();
        assert_eq!(names, ["localhost/a:1", "localhost/a:2"]);
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([super::digest(layer)]));
        assert_eq!(self::entries(layer)["ringfence"], b"a binary");
    }
}
