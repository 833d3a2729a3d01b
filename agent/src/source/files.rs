//! `-f PATH`: files, folders and standard input, to parsed files.
//!
//! What can not be read is a diagnostic like any other problem, so that one broken file neither
//! hides the others nor stops the daemon. Nothing here waits on a pipe or a device, and no file is
//! read that is known to be too large.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_policy::{
    diagnostic::{Diagnostic, Position, Severity},
    load::{InputFile, ParsedFile, parse_file},
    yaml::{MAX_FILE_BYTES, too_large},
};

/// How deep folders are searched; links could otherwise lead on for ever.
pub(crate) const MAX_FOLDERS: usize = 32;
/// What standard input is called in diagnostics.
pub(crate) const STDIN: &str = "<stdin>";
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads and parses every file that `paths` name, in a stable order, each file once.
pub(crate) fn parse(paths: &[PathBuf]) -> Vec<ParsedFile> {
    // One at a time, so that the bytes of a large inventory are never all in memory.
    let places = find(paths).into_iter();
    places.map(read).collect()
}

/// A file as it was parsed, and its path; `None` of what is no file.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) path: Option<PathBuf>,
    pub(crate) file: Arc<ParsedFile>,
}

/// As [`parse`], without reading once more what `known` still has.
pub(crate) fn parse_again(
    paths: &[PathBuf],
    known: impl Fn(&Path) -> Option<Arc<ParsedFile>>,
) -> Vec<Parsed> {
    let places = find(paths).into_iter().map(|found| {
        let path = match &found {
            Ok(Place::File(path)) => Some(path.clone()),
            Ok(Place::Stdin) | Err(_) => None,
        };
        let file = path.as_deref().and_then(&known);
        Parsed {
            file: file.unwrap_or_else(|| Arc::new(read(found))),
            path,
        }
    });
    places.collect()
}

fn read(found: Result<Place, Diagnostic>) -> ParsedFile {
    match found.and_then(Place::read) {
        Ok(InputFile { name, bytes }) => parse_file(name, &bytes),
        Err(problem) => ParsedFile::unreadable(problem),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Stdin,
    File(PathBuf),
}

/// The files below `paths`, and a problem for each path that leads to none.
fn find(paths: &[PathBuf]) -> Vec<Result<Place, Diagnostic>> {
    let mut search = Search::default();
    for path in paths {
        if path.as_os_str() == "-" {
            if !search.found.contains(&Ok(Place::Stdin)) {
                search.found.push(Ok(Place::Stdin));
            }
            continue;
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let before = search.found.len();
                search.folder(path, 0);
                if search.found.len() == before {
                    let one = problem(
                        Severity::Warning,
                        path,
                        "no-files",
                        "the folder adds no `*.yaml`, `*.yml` or `*.json` file".to_owned(),
                    );
                    search.found.push(Err(one));
                }
            }
            Ok(_) => search.file(path),
            Err(error) => search.found.push(Err(unreadable(path, &error))),
        }
    }
    search.found
}

#[derive(Default)]
struct Search {
    found: Vec<Result<Place, Diagnostic>>,
    /// Canonical: the same file by two ways would declare everything twice.
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Search {
    fn file(&mut self, path: &Path) {
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.files.insert(canonical) {
            self.found.push(Ok(Place::File(path.to_owned())));
        }
    }

    fn folder(&mut self, folder: &Path, depth: usize) {
        let canonical = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        if !self.folders.insert(canonical) {
            return;
        }
        if depth > MAX_FOLDERS {
            let message = format!("expected at most {MAX_FOLDERS} folders inside one another");
            self.found
                .push(Err(problem(Severity::Error, folder, "too-deep", message)));
            return;
        }
        let names = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names: Vec<std::ffi::OsString> = match names {
            Ok(names) => names,
            Err(error) => {
                self.found.push(Err(unreadable(folder, &error)));
                return;
            }
        };
        names.sort();
        // Hidden names are editors' leavings, and `..data` of a mounted ConfigMap: its files are
        // linked into the folder under their own names.
        for name in names
            .iter()
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        {
            let path = folder.join(name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.folder(&path, depth + 1),
                Ok(_) if is_input(&path) => self.file(&path),
                Err(error) if is_input(&path) => self.found.push(Err(unreadable(&path, &error))),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn is_input(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known))
}

impl Place {
    fn read(self) -> Result<InputFile, Diagnostic> {
        match self {
            Self::Stdin => bounded(io::stdin().lock(), Path::new(STDIN)),
            Self::File(path) => bounded(open_regular(&path)?, &path),
        }
    }
}

fn open_regular(path: &Path) -> Result<File, Diagnostic> {
    // Non-blocking, because opening a FIFO waits for its writer before anyone can look at it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    // Of the open file: the path may mean another one by now.
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        let message = "expected a regular file or a folder".to_owned();
        return Err(problem(Severity::Error, path, "not-a-file", message));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large(&shown(path), metadata.len()));
    }
    Ok(file)
}

/// Reads to the end, but never more than one byte beyond the limit: a file may grow meanwhile.
fn bounded(from: impl Read, path: &Path) -> Result<InputFile, Diagnostic> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    Ok(InputFile {
        name: shown(path),
        bytes,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    problem(
        Severity::Error,
        path,
        "unreadable",
        format!("failed to read: {error}"),
    )
}

fn problem(severity: Severity, path: &Path, code: &'static str, message: String) -> Diagnostic {
    Diagnostic::new(severity, &shown(path), Position::START, code, message)
}

fn shown(path: &Path) -> Arc<str> {
    Arc::from(path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const GOOD: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: n}}\n";

    fn names(folder: &Path, files: &[ParsedFile]) -> Vec<String> {
        let below = |file: &ParsedFile| {
            Path::new(&*file.name)
                .strip_prefix(folder)
                .unwrap()
                .display()
                .to_string()
        };
        files.iter().map(below).collect()
    }

    #[test]
    fn folders_are_read_recursively_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("b")).unwrap();
        for name in ["c.yml", "b/x.yaml", "a.json", "notes.txt", ".hidden.yaml"] {
            fs::write(at(name), GOOD).unwrap();
        }
        symlink(folder.path(), at("b/loop")).unwrap();
        let files = parse(&[folder.path().to_owned(), at("a.json")]);
        assert_eq!(
            names(folder.path(), &files),
            ["a.json", "b/x.yaml", "c.yml"]
        );
    }

    #[test]
    fn a_mounted_config_map_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..2026_01_01")).unwrap();
        fs::write(at("..2026_01_01/policy.yaml"), GOOD).unwrap();
        symlink("..2026_01_01", at("..data")).unwrap();
        symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
        let files = parse(&[folder.path().to_owned()]);
        assert_eq!(names(folder.path(), &files), ["policy.yaml"]);
        assert!(!files[0].has_errors());
    }

    #[test]
    fn what_can_not_be_read_is_a_diagnostic() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let fifo = at("fifo.yaml");
        let made = std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap();
        assert!(made.success());
        File::create(at("huge.yaml"))
            .unwrap()
            .set_len(200 << 20)
            .unwrap();
        symlink("nowhere", at("link.yaml")).unwrap();
        fs::create_dir(at("empty")).unwrap();

        let mut paths = vec![folder.path().to_owned(), at("missing.yaml"), at("empty")];
        paths.push(PathBuf::from("/dev/zero"));
        let said: Vec<_> = parse(&paths)
            .iter()
            .map(|file| {
                (
                    file.diagnostics[0].code,
                    file.diagnostics[0].message.clone(),
                )
            })
            .collect();
        let no_entry = "failed to read: No such file or directory (os error 2)".to_owned();
        let not_a_file = "expected a regular file or a folder".to_owned();
        assert_eq!(
            said,
            [
                ("not-a-file", not_a_file.clone()),
                (
                    "file-too-large",
                    "the file has 209715200 bytes, expected at most 67108864".to_owned()
                ),
                ("unreadable", no_entry.clone()),
                ("unreadable", no_entry),
                (
                    "no-files",
                    "the folder adds no `*.yaml`, `*.yml` or `*.json` file".to_owned()
                ),
                ("not-a-file", not_a_file),
            ]
        );
    }
}
