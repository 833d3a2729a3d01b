//! Writes the seeds of every target, and the fuzzer's dictionary, below a folder.

use std::{fs, io, path::Path, process::ExitCode};

use agent_policy_fuzz::{TARGETS, Target, parse};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: seeds FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: failed to write {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    for Target {
        name,
        run: _,
        seeds,
    } in TARGETS
    {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
    }
    fs::write(folder.join("words.dict"), dictionary())
}

/// In libFuzzer's form: a quoted word a line.
fn dictionary() -> String {
    let quoted = |word: &str| {
        let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"\n")
    };
    parse::WORDS.lines().map(quoted).collect()
}
