// Package adminapi is the operator's HTTP API, /api/v1, described by OpenAPI at
// /api/v1/openapi.json. It decodes, calls the domain and encodes. It imports no
// store: the services are fleet's interfaces.
package adminapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// maxBody bounds every JSON body, in bytes: the longest is a device with its key.
	maxBody       = 16 << 10
	uploadTimeout = 10 * time.Minute
	// DefaultMaxImage is the largest flash that an ESP32 maps, in bytes.
	DefaultMaxImage = int64(16 << 20)
	// DefaultMaxRelease is the largest release file that the format has, in bytes: an image, 16
	// derived streams, and what is around them (docs/format/release-file.md).
	DefaultMaxRelease = int64(17*18<<20 + 1<<20)
	maxEvents         = 1000
)

// Publisher takes an image or a release file in: checks, stores and publishes it. It leaves
// nothing behind where it returns an error.
type Publisher interface {
	// PublishImage takes an unsigned image. digest nil: not said.
	PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader, p fleet.Publication) (fleet.Release, bool, error)
	// PublishRelease takes a release file of size bytes, 0 where that is not known.
	PublishRelease(ctx context.Context, file io.Reader, size int64, p fleet.Publication) (fleet.Release, bool, error)
}

// Config is what the API needs; all but Log, MaxImage, ServerVersion and, where there are no
// rollouts, those of theirs is required.
type Config struct {
	Releases        fleet.Releases
	Drafts          fleet.Drafts
	Signed          fleet.SignedReleases
	KeyLists        fleet.KeyLists
	Taker           KeyListTaker
	Policies        fleet.Policies
	V1Policies      fleet.V1Policies
	Devices         fleet.Devices
	Keyring         fleet.NativeKeyring
	EnrolTokens     fleet.EnrolTokens
	Derivations     fleet.Derivations
	StreamKeys      fleet.StreamKeys
	Derives         bool // the server makes derived streams by itself
	Orders          fleet.Orders
	Deployments     fleet.Deployments
	Events          fleet.Log
	Tokens          fleet.Tokens
	Rollouts        fleet.Rollouts
	RolloutPolicies fleet.RolloutPolicies
	Mover           Mover
	Groups          fleet.Groups
	Labels          fleet.Labels
	Asker           Asker
	Publisher       Publisher
	// Ready, if not nil, says whether what the server stands on answers.
	Ready func(context.Context) error
	Now   func() time.Time

	Log           *slog.Logger
	MaxImage      int64 // bytes; 0 takes the default
	MaxRelease    int64 // bytes of a release file; 0 takes the default
	ServerVersion string
}

type server struct {
	Config
	api huma.API
}

// Register adds the API to mux.
func Register(mux *http.ServeMux, c Config) huma.API {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxImage == 0 {
		c.MaxImage = DefaultMaxImage
	}
	if c.MaxRelease == 0 {
		c.MaxRelease = DefaultMaxRelease
	}
	if c.ServerVersion == "" {
		c.ServerVersion = "dev"
	}
	hc := huma.DefaultConfig("Runnel operator's API", c.ServerVersion)
	hc.OpenAPIPath = "/api/v1/openapi"
	hc.DocsPath = "" // its page would load scripts from elsewhere
	hc.SchemasPath = ""
	hc.CreateHooks = nil // no $schema member in answers
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	s := &server{Config: c, api: humago.New(mux, hc)}
	s.api.UseMiddleware(s.authenticate)
	s.releases()
	s.keyLists()
	s.streamKeys()
	s.devices()
	s.native()
	s.enrolments()
	s.rollouts()
	s.groups()
	s.why()
	s.others()
	return s.api
}

// op describes an operation that needs a token.
func op(id, method, path, summary string, change ...func(*huma.Operation)) huma.Operation {
	o := huma.Operation{OperationID: id, Method: method, Path: "/api/v1" + path, Summary: summary,
		Security: []map[string][]string{{"token": {}}}, MaxBodyBytes: maxBody, Errors: []int{400, 401, 404, 503}}
	for _, c := range change {
		c(&o)
	}
	return o
}

func status(n int) func(*huma.Operation) { return func(o *huma.Operation) { o.DefaultStatus = n } }

// authenticate wants a token wherever the operation says so.
func (s *server) authenticate(ctx huma.Context, next func(huma.Context)) {
	if len(ctx.Operation().Security) == 0 {
		next(ctx)
		return
	}
	// A scheme has no case (RFC 9110, 11.1).
	scheme, token, _ := strings.Cut(ctx.Header("Authorization"), " ")
	ok := strings.EqualFold(scheme, "Bearer")
	var err error = &fleet.Error{Code: fleet.CodeUnauthenticated, Message: "an operator's token is needed",
		Hint: "give it with --token or RUNNEL_TOKEN; the server's first start wrote one to admin.token in its data folder"}
	if ok {
		_, err = s.Tokens.CheckToken(ctx.Context(), token)
	}
	if err != nil {
		p := s.problem(ctx.Context(), err)
		switch p.Status {
		case http.StatusUnauthorized:
			ctx.SetHeader("WWW-Authenticate", "Bearer")
		case http.StatusServiceUnavailable:
			ctx.SetHeader("Retry-After", retryAfter())
		}
		_ = huma.WriteErr(s.api, ctx, p.Status, p.Detail, p)
		return
	}
	next(ctx)
}
