//! The database while the broker runs: locked by somebody, or without room. Nobody is let in who
//! was not, and who was stays.

use std::path::PathBuf;

use serde_json::json;

use crate::support::sign_in::app::refusal;
use crate::support::sign_in::browser::assert_page;
use crate::support::sign_in::{Browser, Site};

fn database(site: &Site) -> PathBuf {
    site.broker.dir().path().join("state/broker.db")
}

/// Each is told to try again, nothing is used up, and it goes on when the lock is gone.
#[test]
fn a_locked_database_lets_nobody_in_and_nobody_down() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let session = site.session(&tokens);
    let code = app.obtain_code(&site, &mut Browser::new(), "alice");
    let mut browser = Browser::new();
    let page = browser.open(&site, &app.url(&site));
    let lock = rusqlite::Connection::open(database(&site)).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    std::thread::scope(|scope| {
        let redeemed = scope.spawn(|| app.redeem(&site, &code));
        let approved = scope.spawn(|| browser.clone().answer(&site, &page, "allow"));
        assert_eq!(session.post(&ping).status, 200);
        assert_eq!(site.knock(&tokens), 400);
        let refused = redeemed.join().unwrap();
        let unavailable = (503, "temporarily_unavailable".to_owned());
        assert_eq!(refusal(&refused), unavailable);
        assert!(refused.header("Retry-After").is_some(), "{refused:?}");
        assert_page(&approved.join().unwrap(), 500, "Something went wrong here");
    });
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(app.redeem(&site, &code).status, 200);
    app.renewed(&site, &tokens);
    browser.approve(&site, &page);
    assert_eq!(site.knock(&tokens), 400);
}

/// A database that is made anew under the broker's feet lets nobody in who was not.
#[test]
fn a_database_that_breaks_opens_no_door() {
    let site = Site::start();
    let (app, tokens) = site.sign_in("alice");
    let session = site.session(&tokens);
    let path = database(&site);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DROP TABLE access; DROP TABLE refresh;")
        .unwrap();
    drop(db);
    site.broker
        .wait_for_log("sign-in: what is known stays in force");
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(session.post(&ping).status, 200);
    assert_eq!(refusal(&app.refresh(&site, &tokens)).0, 503);
    let mut nobody = site.broker.client().with_token("mcpa_x");
    assert_eq!(nobody.initialize().status, 401);
}
