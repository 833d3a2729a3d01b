//! The guest's files: programs with their libraries, this repository, and the kernel's modules.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use ringfence_lab::guest::{MODULES, PLAN};

use super::{
    cpio::{Archive, Kind},
    kernel::Kernel,
    suite::Suite,
};
use crate::{build::Object, shell};

/// What the tests, and the shell in them, call.
const PROGRAMS: [&str; 31] = [
    "bash", "cat", "chmod", "cp", "cut", "echo", "grep", "gzip", "head", "ip", "kill", "ls",
    "mkdir", "mkfifo", "mount", "mv", "nft", "nsenter", "rm", "sed", "seq", "setpriv", "sh",
    "sleep", "tc", "timeout", "touch", "uname", "umount", "unshare", "wc",
];
/// Folders are one, so that it does not matter where a distribution has a file.
const LINKS: [(&str, &str); 5] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("usr/sbin", "bin"),
];
const TEXTS: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];
/// This machine's, if it has any: without, nobody makes a client of an API, even where that is without TLS.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
const EMPTY: [&str; 6] = ["dev", "proc", "root", "sys", "tmp", "var/lib"];

/// Files of every guest, by name.
#[derive(Debug, Default)]
pub(crate) struct Root {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Folder,
    Text(Vec<u8>),
    /// Copied when the archive is written.
    File(PathBuf),
    Program(PathBuf),
    Link(String),
}

impl Root {
    pub(crate) fn furnish(suite: &Suite) -> Result<Self> {
        let mut root = Self::default();
        for (name, to) in LINKS {
            root.put(name, Entry::Link(to.to_owned()));
        }
        for folder in EMPTY {
            root.put(folder, Entry::Folder);
        }
        for (name, text) in TEXTS {
            root.put(name, Entry::Text(text.into()));
        }
        let certificates = Path::new("/").join(CERTIFICATES);
        if certificates.is_file() {
            root.put(CERTIFICATES, Entry::File(certificates));
        }
        for name in PROGRAMS {
            let program = shell::find(name);
            let program = program.with_context(|| format!("no program `{name}` on PATH"))?;
            root.libraries(&program)?;
            root.put(&format!("usr/bin/{name}"), Entry::Program(program));
        }
        root.repository()?;
        let stripped = shell::root().join("target/vm/programs");
        fs::create_dir_all(&stripped).context("cannot make a folder for programs")?;
        for program in suite.programs() {
            root.built(program, &stripped)?;
        }
        let object = shell::root().join(Object::Release.path());
        let place = absolute(&object)?.to_owned();
        root.put(&place, Entry::File(object));
        root.put("init", Entry::Link(absolute(suite.init())?.to_owned()));
        let plan = serde_json::to_vec(suite.plan()).context("cannot write the plan")?;
        root.put(PLAN, Entry::Text(plan));
        Ok(root)
    }

    /// Writes the archive that `kernel` boots from, and returns its file.
    pub(crate) fn write(&self, kernel: &Kernel) -> Result<PathBuf> {
        let path = kernel.folder().join("root.cpio");
        let file = File::create(&path).context("cannot create an archive")?;
        let mut archive = Archive::new(BufWriter::new(file));
        for (name, entry) in &self.entries {
            let read = |file: &Path| {
                fs::read(file).with_context(|| format!("cannot read {}", file.display()))
            };
            let (kind, content) = match entry {
                Entry::Folder => (Kind::Folder, Vec::new()),
                Entry::Text(text) => (Kind::File, text.clone()),
                Entry::File(file) => (Kind::File, read(file)?),
                Entry::Program(file) => (Kind::Program, read(file)?),
                Entry::Link(to) => (Kind::Link, to.clone().into_bytes()),
            };
            archive.add(name, kind, &content).context("cannot write")?;
        }
        let folder = relative(MODULES);
        archive.add(folder, Kind::Folder, &[])?;
        for (number, (name, content)) in kernel.modules()?.into_iter().enumerate() {
            let name = format!("{folder}/{number:03}-{name}");
            archive.add(&name, Kind::File, &content)?;
        }
        archive
            .finish()?
            .flush()
            .context("cannot write an archive")?;
        Ok(path)
    }

    /// Everything that is checked in, where it is here: tests know the place by heart.
    fn repository(&mut self) -> Result<()> {
        let root = shell::root();
        let listed = shell::output(shell::command("git").args(["ls-files", "-z"]))?;
        for name in listed.split_terminator('\0') {
            let file = root.join(name);
            // A folder beside the index may lack what the index has.
            let Ok(data) = fs::metadata(&file) else {
                continue;
            };
            let place = absolute(&file)?.to_owned();
            let entry = if data.permissions().mode() & 0o111 == 0 {
                Entry::File(file)
            } else {
                Entry::Program(file)
            };
            self.put(&place, entry);
        }
        Ok(())
    }

    /// A program that cargo has built, without what only a debugger reads.
    fn built(&mut self, program: &Path, folder: &Path) -> Result<()> {
        let name = program.file_name().context("a program without a name")?;
        let stripped = folder.join(name);
        let mut strip = shell::command("strip");
        shell::output(strip.arg("-s").arg("-o").arg(&stripped).arg(program))?;
        self.libraries(program)?;
        self.put(absolute(program)?, Entry::Program(stripped));
        Ok(())
    }

    /// The libraries that the loader would take, and the loader.
    fn libraries(&mut self, program: &Path) -> Result<()> {
        let mut ldd = shell::command("ldd");
        let listed = ldd.arg(program).output().context("cannot run ldd")?;
        // A script, or a program without libraries, is an error to ldd.
        for path in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            self.put(path, Entry::Program(PathBuf::from(path)));
        }
        Ok(())
    }

    /// Puts an entry below the folders that its name asks for. The first of a name stays.
    fn put(&mut self, name: &str, entry: Entry) {
        let mut name = relative(name).to_owned();
        for (link, to) in LINKS {
            let merged = if link == "usr/sbin" { "usr/bin" } else { to };
            if let Some(rest) = name.strip_prefix(&format!("{link}/")) {
                name = format!("{merged}/{rest}");
            }
        }
        let above: Vec<_> = name.match_indices('/').map(|(at, _)| at).collect();
        for at in above {
            let folder = name[..at].to_owned();
            self.entries.entry(folder).or_insert(Entry::Folder);
        }
        self.entries.entry(name).or_insert(entry);
    }
}

/// Absolute paths in what ldd prints: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld.so (0x…)`.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn relative(name: &str) -> &str {
    name.trim_start_matches('/')
}

fn absolute(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) if path.is_absolute() => Ok(text),
        Some(_) | None => bail!("not an absolute path in UTF-8: {}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(listed).collect();
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(libraries("\tnot a dynamic executable\n").count(), 0);
    }

    #[test]
    fn folders_come_before_what_lies_in_them_and_merged_ones_are_one() {
        let mut root = Root::default();
        root.put("/lib64/ld.so", Entry::Text(Vec::new()));
        root.put("sbin/ip", Entry::Text(Vec::new()));
        let names: Vec<_> = root.entries.keys().collect();
        assert_eq!(
            names,
            [
                "usr",
                "usr/bin",
                "usr/bin/ip",
                "usr/lib64",
                "usr/lib64/ld.so"
            ]
        );
    }
}
