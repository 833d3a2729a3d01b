//! Certificates that nobody else has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// An authority, by the beginning of its files' names.
pub(crate) struct Authority(PathBuf);

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Result<Self> {
        let it = folder.join(format!("ca-{name}"));
        let subject = format!("/CN={name}");
        let (key, certificate) = files(&it);
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", &subject]);
        command.args(curve).arg("-keyout").arg(key);
        openssl(command.arg("-out").arg(certificate))?;
        Ok(Self(it))
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        files(&self.0).1
    }

    /// A key and a certificate of it for `name`, in `….key` and `….pem`.
    pub(crate) fn issue(&self, name: &str, to: &Path) -> Result<()> {
        let (request, extension) = (to.with_extension("csr"), to.with_extension("ext"));
        let subject = format!("/CN={name}");
        let (key, certificate) = files(to);
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-nodes", "-subj", &subject]);
        command.args(curve).arg("-keyout").arg(key);
        openssl(command.arg("-out").arg(&request))?;
        fs::write(&extension, format!("subjectAltName=DNS:{name}\n"))?;
        let (authority_key, authority) = files(&self.0);
        let mut command = Command::new("openssl");
        command
            .args(["x509", "-req", "-days", "1", "-in"])
            .arg(request);
        command
            .arg("-CA")
            .arg(authority)
            .arg("-CAkey")
            .arg(authority_key);
        command
            .arg("-CAcreateserial")
            .arg("-extfile")
            .arg(extension);
        openssl(command.arg("-out").arg(certificate))
    }
}

fn files(it: &Path) -> (PathBuf, PathBuf) {
    (it.with_extension("key"), it.with_extension("pem"))
}

fn openssl(command: &mut Command) -> Result<()> {
    let output = command.output().context("openssl")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {told}");
    Ok(())
}
