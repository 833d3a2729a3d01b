//! A disk that its kernel makes read-only, as it does at an error.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;
use rustix::fs::{major, minor};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const SIZE: u64 = 8 << 20;
const SINK: &str = "failing";

/// Mounted over a folder that stays when it is gone.
struct Disk(PathBuf);

impl Disk {
    /// `None` where there are no loop devices, or no ext4; says so.
    fn mount(scene: &Scene) -> Result<Option<Self>> {
        let image = scene.lab.folder().join("disk.img");
        fs::File::create(&image)?.set_len(SIZE)?;
        let folder = scene.lab.folder().join("disk");
        fs::create_dir_all(&folder)?;
        let mut format = Command::new("mkfs.ext4");
        format.arg("-q").arg(&image);
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,errors=remount-ro"]);
        mount.arg(&image).arg(&folder);
        for command in [&mut format, &mut mount] {
            let output = command.output();
            if !output.as_ref().is_ok_and(|it| it.status.success()) {
                eprintln!("skipped: no disk of ext4 here: {command:?}: {output:?}");
                return Ok(None);
            }
        }
        Ok(Some(Self(folder)))
    }

    /// What a sector that cannot be read does.
    fn fail(&self) -> Result<()> {
        let device = fs::metadata(&self.0)?.dev();
        let parent = self.0.parent().context("no parent")?;
        ensure!(fs::metadata(parent)?.dev() != device, "it is not mounted");
        let (major, minor) = (major(device), minor(device));
        let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
        let name = device.file_name().context("no device")?;
        let trigger = Path::new("/sys/fs/ext4").join(name);
        fs::write(trigger.join("trigger_fs_error"), "1").context("the disk does not fail")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap_or_default();
    }
}

fn count(status: &Value, sink: &str, what: &str) -> u64 {
    status["records"]["sinks"][sink][what].as_u64().unwrap_or(0)
}

fn comes_to(agent: &Agent, scene: &Scene, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let is_so = eventually(SOON, || {
        let talked = scene.friend.reaches(Protocol::Tcp, scene.server.v4(PORT));
        last = agent.status().unwrap_or_default();
        talked.is_ok() && so(&last)
    });
    ensure!(is_so, "{:#}\n{}", last["records"], agent.log());
    Ok(last)
}

#[test]
fn a_disk_that_becomes_read_only_costs_records_of_its_sink_and_nothing_else() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Some(disk) = Disk::mount(&scene)? else {
        return Ok(());
    };
    let Disk(folder) = &disk;
    let path = folder.join("flows.jsonl");
    let settings = format!(
        "sinks: [{{name: {SINK}, file: {{path: {}}}}}]\n",
        path.display()
    );
    let settings = scene.lab.write("settings.yaml", &settings)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &settings.display().to_string()]);
    agent.start()?;
    let other = agent.flow_file().display().to_string();
    comes_to(&agent, &scene, |status| count(status, SINK, "exported") > 0)?;

    let mut probe = fs::File::create(folder.join("probe"))?;
    disk.fail()?;
    if probe.write_all(b"x").is_ok() {
        // Before 6.6 only what is synced fails, and what is open is written to as ever.
        eprintln!("skipped: this kernel lets files that are open be written to");
        return Ok(());
    }
    let failed = comes_to(&agent, &scene, |status| count(status, SINK, "lost") > 0)?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(50)?;
    prober.finish_denied()?;
    let goes_on = |status: &Value| {
        count(status, &other, "exported") > count(&failed, &other, "exported")
            && count(status, &other, "lost") == 0
    };
    comes_to(&agent, &scene, goes_on)?;

    // Another is in its place.
    let path = path.clone();
    drop(disk);
    let is_told = |record: &Value| record["kind"] == "loss" && record["reason"] == "write-failed";
    let records = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let records = text.lines().map(serde_json::from_str);
        records.collect::<Result<Vec<Value>, _>>()
    };
    let after = comes_to(&agent, &scene, |_| {
        records().is_ok_and(|records| records.iter().any(is_told) && records.len() > 2)
    })?;
    let said: u64 = records()?
        .iter()
        .filter(|record| is_told(record))
        .filter_map(|record| record["count"].as_u64())
        .sum();
    // It is also said of what is no flow.
    ensure!(
        said >= count(&after, SINK, "lost"),
        "{said} {:#}",
        after["records"]
    );
    Ok(())
}
