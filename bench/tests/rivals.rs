//! Every rival, started as the bench starts it: twenty units, sixty buyers at once, and exactly twenty of them have one. It
//! needs `mariadbd` and `redis-server`; without them it fails, and says what to install.

use std::process::Command;

#[test]
fn a_row_lock_sells_what_there_is() {
    sells_twenty("row_lock");
}

#[test]
fn skipping_what_is_locked_sells_what_there_is() {
    sells_twenty("skip_locked");
}

#[test]
fn a_script_sells_what_there_is() {
    sells_twenty("redis_script");
}

#[test]
fn a_distributed_lock_sells_what_there_is() {
    sells_twenty("redis_lock");
}

fn sells_twenty(rival: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_stockade-bench"))
        .args(["rivals", "--rounds", "0", "--rival", rival])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("20 yes, 0 uncertain, 20 orders kept, 20 of 20 units taken"),
        "twenty buyers have one, and the store says the same:\n{said}"
    );
    assert!(said.contains("acknowledged 20, sold_out 40"), "{said}");
}
