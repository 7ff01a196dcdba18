//! The endpoint as a good Rust service would have it: axum, tokio-postgres with its requests pipelined over a few
//! connections, jsonwebtoken, mimalloc. HTTP on a unix socket, behind nginx. tests/bench/bench starts it.
//!
//! From the environment: PEER_SOCKET, PEER_DATABASE (a libpq connection string), PEER_CONNECTIONS (4, the best of 2, 4,
//! 8, 16 and 32 on two processors), PEER_STATEMENT (a file), KEYS_JWT_SECRET_FILE, KEYS_JWKS_FILE, KEYS_JWT_ISSUER,
//! KEYS_JWT_AUDIENCE.

use axum::extract::State;
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use jsonwebtoken::{jwk::JwkSet, Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{collections::HashMap, env, fs, sync::Arc};
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type AnyError = Box<dyn std::error::Error>;

struct App {
    connections: Vec<(Client, Statement)>,
    next: AtomicUsize,
    secret: (DecodingKey, Validation),
    keys: HashMap<String, (DecodingKey, Validation)>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Uuid,
    session_id: Uuid,
    role: String,
}

#[derive(Serialize)]
struct Key<'a> {
    id: Uuid,
    key_prefix: &'a str,
    key_preview: String,
    name: &'a str,
    tier: &'a str,
    scopes: Vec<&'a str>,
    rate_limit_per_minute: i32,
    rate_limit_per_day: i32,
    total_requests: i64,
    last_used_at: Option<String>,
    created_at: Option<String>,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

#[derive(Serialize)]
struct Meta {
    total: usize,
}

#[derive(Serialize)]
struct List<'a> {
    data: Vec<Key<'a>>,
    meta: Meta,
}

fn time(row: &Row, column: usize) -> Option<String> {
    let time: Option<DateTime<Utc>> = row.get(column);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn key(row: &Row) -> Key<'_> {
    let prefix: &str = row.get(9);
    let fixed = prefix.rfind('_').map_or(0, |at| at + 1);
    Key {
        id: row.get(8),
        key_prefix: prefix,
        key_preview: format!("{}••••••••", &prefix[..fixed]),
        name: row.get(10),
        tier: row.get(11),
        scopes: row.get(12),
        rate_limit_per_minute: row.get(13),
        rate_limit_per_day: row.get(14),
        total_requests: row.get(15),
        last_used_at: time(row, 16),
        created_at: time(row, 17),
        expires_at: time(row, 18),
        revoked_at: time(row, 19),
    }
}

fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = 0;
    validation.set_audience(&[env::var("KEYS_JWT_AUDIENCE").unwrap()]);
    validation.set_issuer(&[env::var("KEYS_JWT_ISSUER").unwrap()]);
    validation
}

/// The session of the cookie's token; the key decides the algorithm.
fn verify(app: &App, headers: &HeaderMap) -> Option<Claims> {
    let cookie = headers.get(header::COOKIE)?.to_str().ok()?;
    let token = cookie.split(';').find_map(|crumb| crumb.trim_start().strip_prefix("sb-access-token="))?;
    let kid = jsonwebtoken::decode_header(token).ok()?.kid;
    let (key, validation) = kid.and_then(|kid| app.keys.get(&kid)).unwrap_or(&app.secret);
    let claims = jsonwebtoken::decode::<Claims>(token, key, validation).ok()?.claims;
    (claims.role == "authenticated").then_some(claims)
}

/// The headers of the rate limit, of the first row.
fn limits(row: &Row) -> [(&'static str, String); 5] {
    let (minute_limit, minute_count): (i32, i32) = (row.get(1), row.get(2));
    let (day_limit, day_count): (i32, i32) = (row.get(4), row.get(5));
    let (minute_ends, day_ends, now): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>) = (row.get(3), row.get(6), row.get(7));
    let seconds = |ends: DateTime<Utc>| (((ends - now).num_milliseconds() + 999) / 1000).max(1);
    let (minute_left, day_left) = (minute_limit - minute_count, day_limit - day_count);
    let (limit, left, ends) = if day_left <= 0 { (day_limit, day_left, day_ends) } else { (minute_limit, minute_left, minute_ends) };
    [
        ("x-ratelimit-limit", limit.to_string()),
        ("x-ratelimit-remaining", left.to_string()),
        ("x-ratelimit-reset", ((ends.timestamp_micros() + 999_999) / 1_000_000).to_string()),
        ("ratelimit-policy", format!("\"minute\";q={minute_limit};w=60, \"day\";q={day_limit};w=86400")),
        ("ratelimit", format!("\"minute\";r={minute_left};t={}, \"day\";r={day_left};t={}", seconds(minute_ends), seconds(day_ends))),
    ]
}

fn respond(status: StatusCode, headers: &HeaderMap, limits: Option<[(&'static str, String); 5]>, body: Vec<u8>) -> Response {
    let fixed = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("vary", "Cookie"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-request-id", headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("")),
    ];
    match limits {
        Some(limits) => (status, fixed, limits, body).into_response(),
        None => (status, fixed, body).into_response(),
    }
}

fn refuse(status: StatusCode, headers: &HeaderMap, limits: Option<[(&'static str, String); 5]>, code: &str) -> Response {
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let body = serde_json::json!({"error": {"code": code, "message": code, "request_id": id}});
    respond(status, headers, limits, body.to_string().into_bytes())
}

async fn list_keys(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Some(claims) = verify(&app, &headers) else {
        return refuse(StatusCode::UNAUTHORIZED, &headers, None, "invalid_session");
    };
    let (client, statement) = &app.connections[app.next.fetch_add(1, Ordering::Relaxed) % app.connections.len()];
    let Ok(rows) = client.query(statement, &[&claims.sub, &claims.session_id]).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &headers, None, "service_unavailable");
    };
    let Some(first) = rows.first() else {
        return refuse(StatusCode::UNAUTHORIZED, &headers, None, "invalid_session");
    };
    if first.get::<_, i32>(0) == 0 {
        return refuse(StatusCode::TOO_MANY_REQUESTS, &headers, Some(limits(first)), "rate_limit_exceeded");
    }
    let data: Vec<Key> = rows.iter().filter(|row| row.get::<_, Option<Uuid>>(8).is_some()).map(key).collect();
    let meta = Meta { total: data.len() };
    let body = serde_json::to_vec(&List { data, meta }).unwrap();
    respond(StatusCode::OK, &headers, Some(limits(first)), body)
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let count: usize = env::var("PEER_CONNECTIONS").map_or(Ok(4), |count| count.parse())?;
    let sql = fs::read_to_string(env::var("PEER_STATEMENT")?)?;
    let mut connections = Vec::new();
    for _ in 0..count {
        let (client, connection) = tokio_postgres::connect(&env::var("PEER_DATABASE")?, NoTls).await?;
        tokio::spawn(connection);
        let statement = client.prepare(&sql).await?;
        connections.push((client, statement));
    }
    let set: JwkSet = serde_json::from_str(&fs::read_to_string(env::var("KEYS_JWKS_FILE")?)?)?;
    let mut keys = HashMap::new();
    for jwk in set.keys.iter().filter(|jwk| jwk.common.key_algorithm.is_some_and(|name| name.to_string() == "ES256")) {
        let kid = jwk.common.key_id.clone().ok_or("a key without kid")?;
        keys.insert(kid, (DecodingKey::from_jwk(jwk)?, validation(Algorithm::ES256)));
    }
    let secret = (DecodingKey::from_secret(&fs::read(env::var("KEYS_JWT_SECRET_FILE")?)?), validation(Algorithm::HS256));
    let app = Arc::new(App { connections, next: AtomicUsize::new(0), secret, keys });
    let listener = tokio::net::UnixListener::bind(env::var("PEER_SOCKET")?)?;
    let router = axum::Router::new().route("/api/v1/keys", axum::routing::get(list_keys)).with_state(app);
    axum::serve(listener, router).await?;
    Ok(())
}
