//! Which compiler and linker make the BPF object. Looks, and never installs.
//!
//! The kernel side needs `core` built for the BPF target, hence a compiler *with library
//! source*, and a bpf-linker on the same LLVM as that compiler. Two roads lead there: the
//! rustup toolchain of this workspace, or Debian's packages. See ADR 0003.

use std::{env, fmt, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::shell;

/// Where a package manager's compiler lies, as opposed to rustup's shims on `PATH`.
const SYSTEM_BIN: &str = "/usr/bin";
/// The oldest compiler that builds the workspace (`rust-version` in Cargo.toml).
const OLDEST: (u32, u32) = (1, 95);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Road {
    Rustup,
    System,
}

/// A compiler that can build `core` for BPF.
#[derive(Debug)]
pub(crate) struct Compiler {
    pub(crate) road: Road,
    pub(crate) release: String,
    /// The LLVM major version that bpf-linker must share.
    pub(crate) llvm: u32,
}

/// Everything that the BPF object is made with.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// A compiler that will not do, and why: the text for the user.
type WhyNot = String;

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "the active toolchain",
            Self::System => "the system's toolchain",
        })
    }
}

impl Compiler {
    /// The compiler to use, with the reason why an earlier road was not taken.
    ///
    /// # Errors
    /// With the reason for each road, if neither leads anywhere.
    pub(crate) fn locate() -> Result<(Self, Option<WhyNot>), Vec<WhyNot>> {
        let rustup = match Self::on(Road::Rustup) {
            Ok(compiler) => return Ok((compiler, None)),
            Err(why) => why,
        };
        match Self::on(Road::System) {
            Ok(compiler) => Ok((compiler, Some(rustup))),
            Err(system) => Err(vec![rustup, system]),
        }
    }

    /// The compiler at the end of one road.
    ///
    /// # Errors
    /// With what is missing on that road.
    pub(crate) fn on(road: Road) -> Result<Self, WhyNot> {
        let because = |error: anyhow::Error| format!("{road}: {error:#}");
        let version =
            shell::output(shell::command(road.program("rustc")).arg("-vV")).map_err(because)?;
        let (release, llvm) = parse_version(&version).map_err(because)?;
        if !new_enough(&release) {
            let (major, minor) = OLDEST;
            return Err(format!(
                "{road}: rustc {release} is older than {major}.{minor}"
            ));
        }
        let sysroot =
            shell::output(shell::command(road.program("rustc")).args(["--print", "sysroot"]))
                .map_err(because)?;
        let library = PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library");
        if !library.is_dir() {
            return Err(format!(
                "{road}: rustc {release} has no library source (rust-src)"
            ));
        }
        Ok(Self {
            road,
            release,
            llvm,
        })
    }

    /// A cargo command that runs this compiler: `build`, or `clippy`.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let Self {
            road,
            release: _,
            llvm: _,
        } = self;
        // cargo prefers rustup's shim of a subcommand to the one beside itself.
        let program = match (road, subcommand) {
            (Road::System, "clippy") => "cargo-clippy",
            _ => "cargo",
        };
        let mut command = shell::command(road.program(program));
        command.arg(subcommand);
        // `-Zbuild-std` on a stable compiler.
        command.env("RUSTC_BOOTSTRAP", "1");
        if *road == Road::System {
            command
                .env("RUSTC", road.program("rustc"))
                .env("CARGO", road.program("cargo"));
        }
        command
    }

    /// Whether this compiler comes with clippy; Debian packages it apart.
    pub(crate) fn has_clippy(&self) -> bool {
        shell::output(shell::command(self.road.program("cargo-clippy")).arg("--version")).is_ok()
    }
}

impl Toolchain {
    /// # Errors
    /// With what is missing, and the command that installs it.
    pub(crate) fn locate() -> Result<Self> {
        let (compiler, _) = Compiler::locate().map_err(|why| {
            anyhow!(
                "no compiler for BPF; run `cargo xtask setup`\n  {}",
                why.join("\n  ")
            )
        })?;
        let linker = linker(compiler.llvm)
            .map_err(|why| anyhow!("no bpf-linker; run `cargo xtask setup`\n  {why}"))?;
        Ok(Self { compiler, linker })
    }
}

impl Road {
    fn program(self, name: &str) -> String {
        match self {
            Self::Rustup => name.to_owned(),
            Self::System => format!("{SYSTEM_BIN}/{name}"),
        }
    }
}

/// Where setup puts a bpf-linker when the user's own is of another LLVM.
pub(crate) fn private_tools() -> PathBuf {
    shell::root().join("target/tools")
}

/// The first bpf-linker that is built on LLVM `llvm`.
///
/// # Errors
/// With every linker that was seen, and its LLVM.
pub(crate) fn linker(llvm: u32) -> Result<PathBuf, WhyNot> {
    let mut seen = Vec::new();
    for file in linkers() {
        match fs::read(&file).map(|binary| llvm_inside(&binary)) {
            Ok(Some(found)) if found == llvm => return Ok(file),
            Ok(Some(found)) => seen.push(format!("{} is on LLVM {found}", file.display())),
            Ok(None) => seen.push(format!("{} names no LLVM", file.display())),
            Err(error) => seen.push(format!("{}: {error}", file.display())),
        }
    }
    let seen = if seen.is_empty() {
        "none was found".to_owned()
    } else {
        seen.join("; ")
    };
    Err(format!(
        "rustc is on LLVM {llvm}, so bpf-linker must be too: {seen}"
    ))
}

fn linkers() -> Vec<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let mut files: Vec<PathBuf> = shell::find("bpf-linker").into_iter().collect();
    files.extend(cargo_home.map(|home| home.join("bin/bpf-linker")));
    files.push(private_tools().join("bin/bpf-linker"));
    files.dedup();
    files.retain(|file| file.is_file());
    files
}

/// The LLVM major version that a linker was built on. bpf-linker does not print it: a dynamic
/// build names `libLLVM.so.22.1`, a static one holds the writer's mark `LLVM22.1.8`.
fn llvm_inside(binary: &[u8]) -> Option<u32> {
    let after = |at: usize| binary.get(at + 4..).unwrap_or_default();
    binary
        .windows(4)
        .enumerate()
        .filter(|(_, word)| word == b"LLVM")
        .find_map(|(at, _)| {
            [&b".so."[..], b"-", b""].iter().find_map(|gap| {
                let rest = after(at).strip_prefix(*gap)?;
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let ends_well = matches!(rest.get(digits), Some(b'.' | 0));
                let number = std::str::from_utf8(rest.get(..digits)?)
                    .ok()?
                    .parse()
                    .ok()?;
                (ends_well && number >= 15).then_some(number)
            })
        })
}

/// The release and the LLVM major version in what `rustc -vV` prints.
fn parse_version(text: &str) -> Result<(String, u32)> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .with_context(|| format!("`rustc -vV` has no line `{name}`"))
    };
    let llvm = field("LLVM version:")?;
    let Some(major) = llvm.split('.').next().and_then(|major| major.parse().ok()) else {
        bail!("`rustc -vV` names LLVM `{llvm}`, expected a version such as `22.1.2`");
    };
    Ok((field("release:")?.to_owned(), major))
}

fn new_enough(release: &str) -> bool {
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler_is_read_from_its_version() {
        let text = "rustc 1.96.0 (x)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(text).unwrap(), ("1.96.0".to_owned(), 22));
        assert!(parse_version("release: 1.96.0\n").is_err());
    }

    #[test]
    fn a_compiler_older_than_the_workspace_allows_is_refused() {
        assert!(new_enough("1.95.0"));
        assert!(new_enough("1.97.0-nightly"));
        assert!(!new_enough("1.63.0"));
        assert!(!new_enough("unknown"));
    }

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_binary() {
        assert_eq!(llvm_inside(b"\0libLLVM.so.22.1\0libc.so.6\0"), Some(22));
        assert_eq!(llvm_inside(b"\0libLLVM-21.so.1\0"), Some(21));
        assert_eq!(llvm_inside(b"ERROR: LLVM 1\0LLVM23.1.0\0"), Some(23));
        assert_eq!(llvm_inside(b"an LLVM of no version"), None);
    }
}
