//! Programs of others that read what the agent writes. `cargo xtask test` unpacks them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Result;

use crate::lab::Netns;

/// The folder of their programs; others lie beside it.
const FOLDER: &str = "RINGFENCE_CONSUMERS";

/// A program of a package, if it is there; says so if it is not.
pub fn program(name: &str) -> Option<Command> {
    let found = usr().and_then(|usr| {
        let mut places = ["bin", "sbin"]
            .iter()
            .map(|folder| usr.join(folder).join(name));
        places
            .find(|path| path.is_file())
            .map(|path| (usr.clone(), path))
    });
    let Some((usr, path)) = found else {
        eprintln!("skipped: no {name} in ${FOLDER}: `cargo xtask test` unpacks one");
        return None;
    };
    let mut command = Command::new(path);
    command
        .env("LD_LIBRARY_PATH", libraries(&usr))
        .stdin(Stdio::null());
    Some(command)
}

/// A folder of a package, such as one of modules, below that of its libraries.
pub fn beside_libraries(name: &str) -> Option<PathBuf> {
    Some(libraries(&usr()?).join(name))
}

/// Python with the modules that programs of tests need, if they are there; says so if they are not.
pub fn python() -> Option<Command> {
    let modules = usr().map(|usr| usr.join("../python"));
    let found = modules.filter(|folder| folder.join("complete").is_file());
    let Some(modules) = found else {
        eprintln!(
            "skipped: no modules of Python beside ${FOLDER}: `cargo xtask test` fetches them"
        );
        return None;
    };
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", modules);
    Some(command)
}

fn usr() -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(FOLDER)?);
    folder.parent().map(Path::to_owned)
}

fn libraries(usr: &Path) -> PathBuf {
    usr.join("lib/x86_64-linux-gnu")
}

/// Ends with the test.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// In `netns`, in silence.
    pub fn start(netns: &Netns, command: &mut Command) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(netns.spawn(command)?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
