//! `POST /control`: how tests steer the forge and look into it. `options::HELP` says what there is.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::faults::{Effect, Place};
use crate::http::{Reply, Request};
use crate::state::{Forge, Memory};

/// What cannot be done, in a line.
type Wrong = String;

pub(crate) fn answer(forge: &Forge, request: &Request) -> Reply {
    let order = serde_json::from_str::<Value>(&request.body);
    let done = order
        .map_err(|error| error.to_string())
        .and_then(|order| obey(forge, &order));
    match done {
        Ok(answer) => Reply::json(200, &answer),
        Err(why) => Reply::json(400, &json!({ "error": why })),
    }
}

fn obey(forge: &Forge, order: &Value) -> Result<Value, Wrong> {
    let what = text(order, "do")?;
    let mut memory = forge.memory();
    match what {
        "status" => return Ok(status(&memory)),
        "events" => return Ok(memory.events.clone().into()),
        "forget_events" => memory.events.clear(),
        "fail" => fail(forge, order)?,
        "mend" => forge.faults.clear(),
        "revoke" => {
            let user = user(&memory, order)?;
            memory.grants.retain(|grant| grant.user != user);
        }
        "expire" => {
            let grant = grant(&mut memory, order)?;
            let tokens = memory.access.values_mut().filter(|it| it.grant == grant);
            tokens.for_each(|it| it.expires = SystemTime::UNIX_EPOCH);
        }
        "expire_refresh" => {
            let grant = grant(&mut memory, order)?;
            let tokens = memory.refresh.values_mut().filter(|it| it.grant == grant);
            tokens.for_each(|it| it.expires = SystemTime::UNIX_EPOCH);
        }
        "groups" => {
            let groups = order["groups"].as_array().ok_or("groups is missing")?;
            let groups = groups.iter().filter_map(Value::as_str).map(str::to_owned);
            let groups = groups.collect();
            account(&mut memory, order)?.groups = groups;
        }
        "rename" => account(&mut memory, order)?.name = text(order, "to")?.to_owned(),
        "lifetime" => {
            let seconds = order["seconds"].as_u64().ok_or("seconds is missing")?;
            memory.access_lifetime = Duration::from_secs(seconds);
        }
        "redirect_uri" => memory.redirect_uris.push(text(order, "uri")?.to_owned()),
        _ => return Err(format!("do {what}: there is no such thing")),
    }
    Ok(json!({}))
}

fn text<'a>(order: &'a Value, name: &str) -> Result<&'a str, Wrong> {
    order[name]
        .as_str()
        .ok_or_else(|| format!("{name} is missing"))
}

fn user(memory: &Memory, order: &Value) -> Result<u64, Wrong> {
    let name = text(order, "user")?;
    memory
        .user_named(name)
        .ok_or_else(|| format!("there is no user {name}"))
}

fn account<'a>(memory: &'a mut Memory, order: &Value) -> Result<&'a mut crate::state::User, Wrong> {
    let user = user(memory, order)?;
    let found = memory.users.iter_mut().find(|it| it.id == user);
    found.ok_or_else(|| "there is no such user".to_owned())
}

fn grant(memory: &mut Memory, order: &Value) -> Result<u64, Wrong> {
    let user = user(memory, order)?;
    let grant = memory.grant_of(user).ok_or("the user has no grant")?;
    Ok(grant.id)
}

fn fail(forge: &Forge, order: &Value) -> Result<(), Wrong> {
    let place = text(order, "place")?;
    let place = Place::named(place).ok_or_else(|| format!("place {place}: unknown"))?;
    let time = Duration::from_millis(order["ms"].as_u64().unwrap_or(0));
    let how = text(order, "how")?;
    let effect = Effect::named(how, time).ok_or_else(|| format!("how {how}: unknown"))?;
    let times = order["times"].as_u64().unwrap_or(1);
    let times = usize::try_from(times).map_err(|error| error.to_string())?;
    forge.faults.add(place, effect, times);
    Ok(())
}

/// Counts that have never been touched are absent.
fn status(memory: &Memory) -> Value {
    let grants = memory.grants.iter().map(|grant| {
        let name = memory.users.iter().find(|it| it.id == grant.user);
        json!({
            "id": grant.id,
            "user": name.map(|it| &it.name),
            "scope": grant.scope,
            "counter": grant.counter,
        })
    });
    json!({ "counts": memory.counts, "grants": grants.collect::<Value>() })
}
