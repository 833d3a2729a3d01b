//! Puts the plugin into a node's CNI configuration, and takes it out.
//!
//! Runtimes use the first configuration of the folder, by name, and look at it again whenever the folder changes: so a file
//! is written beside it under a name that they ignore, and takes its place as a whole. What is not understood is
//! left alone.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{NAME, ordered::Json};

#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("no CNI configuration in {}: the node's network is to be set up first; nothing was changed", .0.display())]
    Nothing(PathBuf),
    #[error("{} is not understood, and nothing was changed: {why}", .path.display())]
    NotUnderstood { path: PathBuf, why: String },
    #[error("{} is there beside {}, and would be used instead: nothing was changed", .other.display(), .path.display())]
    Shadowed { path: PathBuf, other: PathBuf },
    #[error("{} has just been changed by somebody else: nothing was done", .0.display())]
    Changed(PathBuf),
    #[error("cannot {doing} {}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The file that is changed, or has taken the place of another.
    Changed(PathBuf),
    /// It was so already.
    Unchanged(PathBuf),
}

/// What a plugin is told beside its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) socket: Option<String>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) admit: bool,
}

/// A list of plugins that a single one has become keeps the name of its file, so that it comes where that came.
const LIST: &str = "conflist";
const SINGLE: [&str; 2] = ["conf", "json"];

/// Of our plugin in a list that was made: which file that was.
const ORIGIN: &str = "madeFrom";

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_path_buf();
    move |source| InstallError::Io {
        doing,
        path,
        source,
    }
}

/// Has the node's first configuration end with the plugin.
///
/// # Errors
///
/// Nothing has changed then.
pub(crate) fn install(folder: &Path, options: &Options) -> Result<Outcome, InstallError> {
    let path = first(folder)?;
    let read_before = read(&path)?;
    let mut list = read_before.clone();
    let is_list = path.extension().is_some_and(|kind| kind == LIST);
    if !is_list {
        list = as_list(list, &path)?;
    }
    let origin = if is_list {
        origin(&list).map(str::to_owned)
    } else {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let plugins = plugins(&mut list, &path)?;
    let ours = entry(options, origin.as_deref());
    let before = plugins.clone();
    match plugins.iter_mut().find(|plugin| is_ours(plugin)) {
        Some(there) => *there = ours,
        None => plugins.push(ours),
    }
    if is_list && *plugins == before {
        return Ok(Outcome::Unchanged(path));
    }
    if is_list {
        replace(&path, &read_before, &list)?;
        return Ok(Outcome::Changed(path));
    }
    let made = path.with_extension(LIST);
    // Both are there for a moment, and either is whole; the longer name comes after the shorter one. Who was
    // interrupted then goes on here, and so it does when the owner has written the single plugin anew.
    let there = if is_there(&made) {
        Some(read(&made)?)
    } else {
        None
    };
    if let Some(there) = &there
        && origin.as_deref() != self::origin(there)
    {
        return Err(InstallError::Shadowed { path, other: made });
    }
    write_beside(&made, &text(&made, &list)?, mode(&path), || {
        is_still(&path, &read_before)
    })?;
    take_away(&path, &read_before)?;
    sync(folder)?;
    Ok(Outcome::Changed(made))
}

/// Takes the plugin out of every configuration of the folder. A list that was a single plugin's stays a list.
///
/// # Errors
///
/// Those that were changed before stay so. One that names the plugin still, and is not understood, is an error: without
/// the binary no pod would start.
pub(crate) fn uninstall(folder: &Path) -> Result<Vec<Outcome>, InstallError> {
    let mut outcomes = Vec::new();
    let mut left = None;
    for path in configurations(folder)? {
        let read_before = read(&path).ok();
        let mut list = read_before.clone();
        let plugins = list.as_mut().and_then(|list| plugins(list, &path).ok());
        let Some(plugins) = plugins else {
            // What is not understood is not ours, unless it says so.
            if names_us(&path) {
                left = Some(path);
            }
            continue;
        };
        let before = plugins.len();
        plugins.retain(|plugin| !is_ours(plugin));
        if plugins.len() == before {
            continue;
        }
        if plugins.is_empty() {
            let why = format!("{NAME} is its only plugin");
            return Err(InstallError::NotUnderstood { path, why });
        }
        if let (Some(before), Some(list)) = (&read_before, &list) {
            replace(&path, before, list)?;
        }
        outcomes.push(Outcome::Changed(path));
    }
    match left {
        Some(path) => {
            let why = format!("it names {NAME}: take that out by hand first");
            Err(InstallError::NotUnderstood { path, why })
        }
        None => Ok(outcomes),
    }
}

/// Also of one that cannot be read: it may. Nothing is behind a link that leads nowhere.
fn names_us(path: &Path) -> bool {
    match fs::read_to_string(path) {
        Ok(text) => text.contains(&format!("\"{NAME}\"")),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Of a file, as much is looked at together.
const PART: usize = 1 << 20;

/// Puts this very binary where runtimes look for plugins.
pub(crate) fn copy_binary(folder: &Path) -> Result<Outcome, InstallError> {
    let own = Path::new("/proc/self/exe");
    let path = folder.join(NAME);
    if is_same(own, &path).unwrap_or(false) {
        return Ok(Outcome::Unchanged(path));
    }
    let new = fs::read(own).map_err(failed("read", own))?;
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    write_beside(&path, &new, 0o755, || Ok(()))?;
    Ok(Outcome::Changed(path))
}

/// Whether two files have the same bytes, of which no more than a part is in memory.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let mut left = one.metadata()?.len();
    if other.metadata()?.len() != left {
        return Ok(false);
    }
    let mut parts = [vec![0; PART], vec![0; PART]];
    while left > 0 {
        let [a, b] = &mut parts;
        let next = usize::try_from(left).map_or(PART, |left| left.min(PART));
        a.truncate(next);
        b.truncate(next);
        one.read_exact(a)?;
        other.read_exact(b)?;
        if a != b {
            return Ok(false);
        }
        left -= next as u64;
    }
    Ok(true)
}

/// Takes away what [`copy_binary`] has put there.
pub(crate) fn remove_binary(folder: &Path) -> Result<Option<PathBuf>, InstallError> {
    let path = folder.join(NAME);
    match fs::remove_file(&path) {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("remove", &path)(error)),
    }
}

/// The configurations of a folder, in the order in which runtimes take them.
fn configurations(folder: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("read", folder))?,
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let kind = path.extension().and_then(|kind| kind.to_str());
            // A link that leads nowhere from here may lead somewhere for the runtime.
            kind.is_some_and(|kind| kind == LIST || SINGLE.contains(&kind))
                && (path.is_file() || path.is_symlink())
        })
        .collect();
    paths.sort();
    Ok(paths)
}

fn first(folder: &Path) -> Result<PathBuf, InstallError> {
    let mut paths = configurations(folder)?.into_iter();
    paths
        .next()
        .ok_or_else(|| InstallError::Nothing(folder.to_path_buf()))
}

fn read(path: &Path) -> Result<Json, InstallError> {
    let text = fs::read(path).map_err(failed("read", path))?;
    serde_json::from_slice(&text).map_err(|error| InstallError::NotUnderstood {
        path: path.to_path_buf(),
        why: error.to_string(),
    })
}

/// What a single plugin is as a list of one.
fn as_list(single: Json, path: &Path) -> Result<Json, InstallError> {
    let is_list = single.get("plugins").is_some();
    if is_list {
        return Ok(single);
    }
    let Json::Object(mut plugin) = single else {
        return Err(not_understood(path, "it is no object"));
    };
    let mut list = Vec::new();
    // Of the list, and no more of the plugin.
    for name in ["cniVersion", "name", "disableCheck", "disableGC"] {
        if let Some(at) = plugin.iter().position(|(field, _)| field == name) {
            list.push(plugin.remove(at));
        }
    }
    list.push(("plugins".to_owned(), Json::List(vec![Json::Object(plugin)])));
    Ok(Json::Object(list))
}

/// Those of a list that can be understood.
fn plugins<'l>(list: &'l mut Json, path: &Path) -> Result<&'l mut Vec<Json>, InstallError> {
    if list.get("name").and_then(Json::as_text).is_none() {
        return Err(not_understood(path, "it has no name"));
    }
    let version = list.get("cniVersion").and_then(Json::as_text);
    let known = super::request::VERSIONS;
    if version.is_none_or(|version| !known.contains(&version)) {
        let why = format!(
            "its cniVersion is {}, and the plugin is for {}",
            version.unwrap_or("absent"),
            known.join(", ")
        );
        return Err(not_understood(path, why));
    }
    let Some(Json::List(plugins)) = list.get_mut("plugins") else {
        return Err(not_understood(path, "it has no list of plugins"));
    };
    if plugins.is_empty() {
        return Err(not_understood(
            path,
            "it has no plugin that makes an interface",
        ));
    }
    let is_plugin = |plugin: &Json| plugin.get("type").and_then(Json::as_text).is_some();
    if !plugins.iter().all(is_plugin) {
        return Err(not_understood(path, "one of its plugins has no type"));
    }
    if plugins.first().is_some_and(is_ours) {
        return Err(not_understood(
            path,
            "ringfence is its first plugin, and makes no interface",
        ));
    }
    Ok(plugins)
}

fn not_understood(path: &Path, why: impl Into<String>) -> InstallError {
    InstallError::NotUnderstood {
        path: path.to_path_buf(),
        why: why.into(),
    }
}

fn is_ours(plugin: &Json) -> bool {
    plugin.get("type").and_then(Json::as_text) == Some(NAME)
}

/// The file that a list was made from: its owner may write it anew.
fn origin(list: &Json) -> Option<&str> {
    let Json::List(plugins) = list.get("plugins")? else {
        return None;
    };
    let ours = plugins.iter().find(|plugin| is_ours(plugin))?;
    ours.get(NAME)?.get(ORIGIN)?.as_text()
}

/// Only what differs from what holds anyway, and what the list was made from.
fn entry(options: &Options, origin: Option<&str>) -> Json {
    let Options {
        socket,
        timeout_seconds,
        admit,
    } = options;
    let socket = socket.as_ref().map(|socket| ("socket", Json::text(socket)));
    let timeout = timeout_seconds.map(|seconds| ("timeoutSeconds", Json::Unsigned(seconds)));
    let admit = admit.then(|| ("onUnavailable", Json::text("admit")));
    let origin = origin.map(|origin| (ORIGIN, Json::text(origin)));
    let settings: Vec<_> = [socket, timeout, admit, origin]
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut fields = vec![("type".to_owned(), Json::text(NAME))];
    if !settings.is_empty() {
        fields.push((NAME.to_owned(), Json::Object(settings)));
    }
    Json::Object(fields)
}

/// A file behind a link is replaced, and not the link.
fn replace(path: &Path, before: &Json, list: &Json) -> Result<(), InstallError> {
    let file = fs::canonicalize(path).map_err(failed("find", path))?;
    write_beside(&file, &text(path, list)?, mode(&file), || {
        is_still(path, before)
    })
}

fn text(path: &Path, list: &Json) -> Result<Vec<u8>, InstallError> {
    let mut text = serde_json::to_vec_pretty(list)
        .map_err(|error| failed("write", path)(io::Error::from(error)))?;
    text.push(b'\n');
    Ok(text)
}

/// Others' are read by whoever they let.
fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o600, |metadata| metadata.mode() & 0o777)
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// What its owner has written meanwhile must not be lost.
fn is_still(path: &Path, before: &Json) -> Result<(), InstallError> {
    match read(path) {
        Ok(now) if now == *before => Ok(()),
        _ => Err(InstallError::Changed(path.to_path_buf())),
    }
}

/// Removes a file unless its owner has written it anew, at whatever moment.
fn take_away(path: &Path, before: &Json) -> Result<(), InstallError> {
    let aside = beside(path, "old");
    fs::rename(path, &aside).map_err(failed("remove", path))?;
    let is_other = is_still(&aside, before).is_err();
    if is_other {
        match fs::hard_link(&aside, path) {
            Ok(()) => {}
            // What has come meanwhile is newer still.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Where there are no such links. What was moved aside stays, whatever comes of it.
            Err(_) => fs::rename(&aside, path).map_err(failed("put back", path))?,
        }
    }
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &aside)(error));
        }
        Ok(()) | Err(_) => {}
    }
    if is_there(path) {
        return Err(InstallError::Changed(path.to_path_buf()));
    }
    Ok(())
}

/// A name that no runtime takes for a configuration, or for a plugin.
fn beside(path: &Path, kind: &str) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder.join(format!(".{name}.{}.{kind}", std::process::id()))
}

/// Under another name; then in its place, if it may be.
fn write_beside(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    may_be: impl Fn() -> Result<(), InstallError>,
) -> Result<(), InstallError> {
    let draft = beside(path, "new");
    let written = (|| {
        let mut file = File::create(&draft)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    let written = written.map_err(failed("write", path));
    let placed = written
        .and_then(|()| may_be())
        .and_then(|()| fs::rename(&draft, path).map_err(failed("write", path)));
    if let Err(error) = placed {
        // It may not have come into being.
        drop(fs::remove_file(&draft));
        return Err(error);
    }
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn sync(folder: &Path) -> Result<(), InstallError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("write", folder))
}

#[cfg(test)]
mod tests;
