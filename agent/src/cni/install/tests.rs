use std::fs;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read_back(folder: &tempfile::TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const LISTED: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "pods",
  "zebra": 1.5,
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "ranges": []
      },
      "apple": null
    }
  ],
  "aardvark": [
    true,
    -1
  ]
}
"#;

#[test]
fn it_comes_last_and_all_else_stays_where_it_was() {
    let folder = folder(&[
        ("10-a.conflist", LISTED),
        ("20-b.conflist", "{"),
        ("readme", "x"),
    ]);
    let outcome = install(folder.path(), &Options::default()).unwrap();
    let path = folder.path().join("10-a.conflist");
    assert_eq!(outcome, Outcome::Changed(path.clone()));
    let expected = LISTED.replace(
        "      \"apple\": null\n    }\n",
        "      \"apple\": null\n    },\n    {\n      \"type\": \"ringfence\"\n    }\n",
    );
    assert_eq!(read_back(&folder, "10-a.conflist"), expected);
    // Twice is as once.
    let again = install(folder.path(), &Options::default()).unwrap();
    assert_eq!(again, Outcome::Unchanged(path.clone()));
    assert_eq!(uninstall(folder.path()).unwrap(), [Outcome::Changed(path)]);
    assert_eq!(read_back(&folder, "10-a.conflist"), LISTED);
    assert_eq!(uninstall(folder.path()).unwrap(), []);
    assert_eq!(names(&folder), ["10-a.conflist", "20-b.conflist", "readme"]);
}

#[test]
fn other_settings_take_the_place_of_those_before() {
    let folder = folder(&[("10-a.conflist", LISTED)]);
    install(folder.path(), &Options::default()).unwrap();
    let options = Options {
        socket: Some("/run/x.sock".to_owned()),
        timeout_seconds: Some(3),
        admit: true,
    };
    install(folder.path(), &options).unwrap();
    let text = read_back(&folder, "10-a.conflist");
    assert_eq!(text.matches("\"type\": \"ringfence\"").count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "socket": "/run/x.sock", "timeoutSeconds": 3, "onUnavailable": "admit",
    });
    assert_eq!(value["plugins"][1]["ringfence"], expected);
}

#[test]
fn a_single_plugin_becomes_a_list() {
    let single = r#"{"cniVersion": "0.3.1", "name": "pods", "type": "bridge", "mtu": 1400}"#;
    let folder = folder(&[("10-a.conf", single)]);
    install(folder.path(), &Options::default()).unwrap();
    assert_eq!(names(&folder), ["10-a.conflist"]);
    let text = read_back(&folder, "10-a.conflist");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "cniVersion": "0.3.1",
        "name": "pods",
        "plugins": [
            {"type": "bridge", "mtu": 1400},
            {"type": "ringfence", "ringfence": {"madeFrom": "10-a.conf"}},
        ],
    });
    assert_eq!(value, expected);
    // Once more, as it stays when it was interrupted; and in other words, of its owner.
    for mtu in ["1400", "9000"] {
        let again = single.replace("1400", mtu);
        fs::write(folder.path().join("10-a.conf"), again).unwrap();
        install(folder.path(), &Options::default()).unwrap();
        assert_eq!(names(&folder), ["10-a.conflist"]);
        let text = read_back(&folder, "10-a.conflist");
        assert!(text.contains(mtu) && text.contains("madeFrom"), "{text}");
        let path = folder.path().join("10-a.conflist");
        let unchanged = install(folder.path(), &Options::default()).unwrap();
        assert_eq!(unchanged, Outcome::Unchanged(path));
    }
}

#[test]
fn a_file_behind_a_link_is_changed_and_the_link_stays() {
    let elsewhere = folder(&[("pods", LISTED)]);
    let folder = folder(&[]);
    let (file, link) = (
        elsewhere.path().join("pods"),
        folder.path().join("10-a.conflist"),
    );
    std::os::unix::fs::symlink(&file, &link).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    install(folder.path(), &Options::default()).unwrap();
    assert!(link.is_symlink());
    assert!(read_back(&elsewhere, "pods").contains("ringfence"));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    uninstall(folder.path()).unwrap();
    assert_eq!(read_back(&elsewhere, "pods"), LISTED);
    // The runtime may see what is there.
    fs::remove_file(&file).unwrap();
    let second = folder.path().join("20-b.conflist");
    fs::write(&second, LISTED).unwrap();
    let error = install(folder.path(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("10-a.conflist"), "{error}");
    assert_eq!(read_back(&folder, "20-b.conflist"), LISTED);
    assert_eq!(uninstall(folder.path()).unwrap(), []);
}

#[test]
fn a_list_that_was_made_has_the_rights_of_what_it_was_made_from() {
    let single = r#"{"cniVersion": "0.3.1", "name": "pods", "type": "bridge"}"#;
    let folder = folder(&[("10-a.conf", single)]);
    let path = folder.path().join("10-a.conf");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    install(folder.path(), &Options::default()).unwrap();
    let made = folder.path().join("10-a.conflist");
    assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn what_its_owner_has_written_meanwhile_is_not_lost() {
    let folder = folder(&[("10-a.conflist", LISTED)]);
    let path = folder.path().join("10-a.conflist");
    let before = read(&path).unwrap();
    fs::write(&path, LISTED.replace("ptp", "other")).unwrap();
    let error = replace(&path, &before, &before).unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
    assert!(read_back(&folder, "10-a.conflist").contains("other"));
    assert_eq!(names(&folder), ["10-a.conflist"]);
}

#[test]
fn what_is_not_understood_is_left_alone() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}"#,
        r#"{"cniVersion": "1.0.0", "name": "a", "name": "b", "plugins": [{"type": "ptp"}]}"#,
        r#"{"cniVersion": "9.0.0", "name": "a", "plugins": [{"type": "ptp"}]}"#,
        r#"{"cniVersion": "0.2.0", "name": "a", "plugins": [{"type": "ptp"}]}"#,
        r#"{"cniVersion": "1.0.0", "name": "a", "plugins": {}}"#,
        r#"{"cniVersion": "1.0.0", "name": "a", "plugins": []}"#,
        r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [7]}"#,
        r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "ringfence"}]}"#,
    ] {
        let folder = folder(&[("10-a.conflist", text), ("20-b.conflist", LISTED)]);
        let error = install(folder.path(), &Options::default()).unwrap_err();
        assert!(error.to_string().contains("10-a.conflist"), "{error}");
        assert_eq!(read_back(&folder, "10-a.conflist"), text);
        assert_eq!(read_back(&folder, "20-b.conflist"), LISTED);
        assert_eq!(names(&folder).len(), 2);
    }
    let single = r#"{"cniVersion": "0.3.1", "name": "pods", "type": "bridge"}"#;
    let folder = folder(&[("10-a.conf", single), ("10-a.conflist", LISTED)]);
    let error = install(folder.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, InstallError::Shadowed { .. }), "{error}");
    assert_eq!(read_back(&folder, "10-a.conf"), single);
}

#[test]
fn what_else_is_in_the_folder_stays_as_it_is() {
    let folder = folder(&[("20-b.conflist", LISTED)]);
    let path = |name: &str| folder.path().join(name);
    for number in 0..1000 {
        let name = format!("{number:03}-other");
        fs::write(path(&format!("{name}.bak")), "{").unwrap();
        fs::write(path(&format!("{name}.conflist~")), [0xff, 0]).unwrap();
        fs::write(path(&format!("zz{name}.conflist")), LISTED).unwrap();
    }
    fs::create_dir(path("00-folder.conflist")).unwrap();
    let before = names(&folder);
    install(folder.path(), &Options::default()).unwrap();
    assert_eq!(names(&folder), before);
    assert!(read_back(&folder, "20-b.conflist").contains("ringfence"));
    uninstall(folder.path()).unwrap();
    assert_eq!(names(&folder), before);
    for name in before.iter().filter(|name| name.starts_with("zz")) {
        assert_eq!(read_back(&folder, name), LISTED);
    }
    assert!(!read_back(&folder, "20-b.conflist").contains("ringfence"));
}

#[test]
fn a_folder_without_a_configuration_is_an_error() {
    let empty = folder(&[("readme", "")]);
    let error = install(empty.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, InstallError::Nothing(_)), "{error}");
    let absent = empty.path().join("absent");
    let error = install(&absent, &Options::default()).unwrap_err();
    assert!(matches!(error, InstallError::Nothing(_)), "{error}");
    assert_eq!(uninstall(&absent).unwrap(), []);
}

#[test]
fn the_binary_is_copied_once_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("bin");
    let path = to.join(NAME);
    assert_eq!(copy_binary(&to).unwrap(), Outcome::Changed(path.clone()));
    assert_eq!(copy_binary(&to).unwrap(), Outcome::Unchanged(path.clone()));
    let mode = fs::metadata(&path).unwrap().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    assert_eq!(remove_binary(&to).unwrap(), Some(path));
    assert_eq!(remove_binary(&to).unwrap(), None);
}
