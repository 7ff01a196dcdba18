// The endpoint as a good Go service would have it: net/http, pgx with a pool of connections, golang-jwt. HTTP on a
// unix socket, behind nginx. tests/bench/bench starts it.
//
// From the environment: PEER_SOCKET, PEER_DATABASE (a libpq connection string), PEER_CONNECTIONS (16), PEER_STATEMENT
// (a file), KEYS_JWT_SECRET_FILE, KEYS_JWKS_FILE, KEYS_JWT_ISSUER, KEYS_JWT_AUDIENCE.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

type key struct {
	ID             string   `json:"id"`
	Prefix         string   `json:"key_prefix"`
	Preview        string   `json:"key_preview"`
	Name           string   `json:"name"`
	Tier           string   `json:"tier"`
	Scopes         []string `json:"scopes"`
	LimitPerMinute int32    `json:"rate_limit_per_minute"`
	LimitPerDay    int32    `json:"rate_limit_per_day"`
	TotalRequests  int64    `json:"total_requests"`
	LastUsedAt     *string  `json:"last_used_at"`
	CreatedAt      *string  `json:"created_at"`
	ExpiresAt      *string  `json:"expires_at"`
	RevokedAt      *string  `json:"revoked_at"`
}

type list struct {
	Data []key `json:"data"`
	Meta struct {
		Total int `json:"total"`
	} `json:"meta"`
}

type quota struct {
	granted, minuteLimit, minuteCount, dayLimit, dayCount int32
	minuteEnds, dayEnds, now                              time.Time
}

type claims struct {
	Session string `json:"session_id"`
	Role    string `json:"role"`
	jwt.RegisteredClaims
}

type app struct {
	pool   *pgxpool.Pool
	sql    string
	parser *jwt.Parser
	secret []byte
	keys   map[string]*ecdsa.PublicKey
}

func rfc3339(t pgtype.Timestamptz) *string {
	if !t.Valid {
		return nil
	}
	text := t.Time.UTC().Format("2006-01-02T15:04:05Z")
	return &text
}

// keyOf lets the key decide the algorithm, never the header alone.
func (a *app) keyOf(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	public, known := a.keys[kid]
	switch {
	case known && token.Method == jwt.SigningMethodES256:
		return public, nil
	case !known && token.Method == jwt.SigningMethodHS256:
		return a.secret, nil
	}
	return nil, errors.New("no key")
}

func (a *app) verify(r *http.Request) (user, session pgtype.UUID, good bool) {
	cookie, err := r.Cookie("sb-access-token")
	if err != nil {
		return
	}
	var found claims
	if _, err := a.parser.ParseWithClaims(cookie.Value, &found, a.keyOf); err != nil || found.Role != "authenticated" {
		return
	}
	good = user.Scan(found.Subject) == nil && session.Scan(found.Session) == nil
	return
}

func (a *app) query(ctx context.Context, user, session pgtype.UUID) (*quota, *list, error) {
	rows, err := a.pool.Query(ctx, a.sql, user, session)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var q *quota
	answer := &list{Data: []key{}}
	for rows.Next() {
		var of quota
		var id pgtype.UUID
		var prefix, name, tier pgtype.Text
		var minute, day pgtype.Int4
		var total pgtype.Int8
		var used, created, expires, revoked pgtype.Timestamptz
		var k key
		if err := rows.Scan(&of.granted, &of.minuteLimit, &of.minuteCount, &of.minuteEnds, &of.dayLimit, &of.dayCount, &of.dayEnds, &of.now,
			&id, &prefix, &name, &tier, &k.Scopes, &minute, &day, &total, &used, &created, &expires, &revoked); err != nil {
			return nil, nil, err
		}
		q = &of
		if id.Valid {
			k.ID, k.Prefix, k.Name, k.Tier = id.String(), prefix.String, name.String, tier.String
			k.Preview = k.Prefix[:strings.LastIndexByte(k.Prefix, '_')+1] + "••••••••"
			k.LimitPerMinute, k.LimitPerDay, k.TotalRequests = minute.Int32, day.Int32, total.Int64
			k.LastUsedAt, k.CreatedAt, k.ExpiresAt, k.RevokedAt = rfc3339(used), rfc3339(created), rfc3339(expires), rfc3339(revoked)
			answer.Data = append(answer.Data, k)
		}
	}
	answer.Meta.Total = len(answer.Data)
	return q, answer, rows.Err()
}

func (q *quota) setHeaders(h http.Header) {
	text := func(n int32) string { return strconv.Itoa(int(n)) }
	seconds := func(ends time.Time) string {
		return strconv.Itoa(max(int((ends.Sub(q.now)+time.Second-1)/time.Second), 1))
	}
	limit, left, ends := q.minuteLimit, q.minuteLimit-q.minuteCount, q.minuteEnds
	if q.dayCount >= q.dayLimit {
		limit, left, ends = q.dayLimit, q.dayLimit-q.dayCount, q.dayEnds
	}
	h.Set("X-RateLimit-Limit", text(limit))
	h.Set("X-RateLimit-Remaining", text(left))
	h.Set("X-RateLimit-Reset", strconv.FormatInt((ends.UnixMicro()+999_999)/1_000_000, 10))
	h.Set("RateLimit-Policy", `"minute";q=`+text(q.minuteLimit)+`;w=60, "day";q=`+text(q.dayLimit)+`;w=86400`)
	h.Set("RateLimit", `"minute";r=`+text(q.minuteLimit-q.minuteCount)+`;t=`+seconds(q.minuteEnds)+
		`, "day";r=`+text(q.dayLimit-q.dayCount)+`;t=`+seconds(q.dayEnds))
}

func respond(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	w.Write(text)
}

func refuse(w http.ResponseWriter, status int, code string) {
	type detail struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		RequestID string `json:"request_id"`
	}
	respond(w, status, map[string]detail{"error": {code, code, w.Header().Get("X-Request-Id")}})
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Cookie")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Request-Id", r.Header.Get("X-Request-Id"))
	user, session, good := a.verify(r)
	if !good {
		refuse(w, 401, "invalid_session")
		return
	}
	q, answer, err := a.query(r.Context(), user, session)
	switch {
	case err != nil:
		refuse(w, 503, "service_unavailable")
	case q == nil:
		refuse(w, 401, "invalid_session")
	case q.granted == 0:
		q.setHeaders(h)
		refuse(w, 429, "rate_limit_exceeded")
	default:
		q.setHeaders(h)
		respond(w, 200, answer)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func readKeys(file string) map[string]*ecdsa.PublicKey {
	var set struct {
		Keys []struct{ Kid, Alg, X, Y string }
	}
	if err := json.Unmarshal(must(os.ReadFile(file)), &set); err != nil {
		log.Fatal(err)
	}
	keys := map[string]*ecdsa.PublicKey{}
	number := func(text string) *big.Int {
		return new(big.Int).SetBytes(must(base64.RawURLEncoding.DecodeString(text)))
	}
	for _, k := range set.Keys {
		if k.Alg == "ES256" {
			keys[k.Kid] = &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(k.X), Y: number(k.Y)}
		}
	}
	return keys
}

func main() {
	config := must(pgxpool.ParseConfig(os.Getenv("PEER_DATABASE")))
	config.MaxConns = 16
	if count := os.Getenv("PEER_CONNECTIONS"); count != "" {
		config.MaxConns = int32(must(strconv.Atoi(count)))
	}
	config.MinConns = config.MaxConns
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement // prepared once per connection
	a := &app{
		pool:   must(pgxpool.NewWithConfig(context.Background(), config)),
		sql:    string(must(os.ReadFile(os.Getenv("PEER_STATEMENT")))),
		secret: must(os.ReadFile(os.Getenv("KEYS_JWT_SECRET_FILE"))),
		keys:   readKeys(os.Getenv("KEYS_JWKS_FILE")),
		parser: jwt.NewParser(jwt.WithValidMethods([]string{"HS256", "ES256"}), jwt.WithExpirationRequired(),
			jwt.WithIssuer(os.Getenv("KEYS_JWT_ISSUER")), jwt.WithAudience(os.Getenv("KEYS_JWT_AUDIENCE"))),
	}
	log.Fatal(http.Serve(must(net.Listen("unix", os.Getenv("PEER_SOCKET"))), a))
}
