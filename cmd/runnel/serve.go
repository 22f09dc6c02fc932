package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
	_ "time/tzdata" // maintenance windows are the same on machines that have no zones

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/adminapi"
	"github.com/runnel-fota/runnel/internal/blob/checked"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/httpserver"
	"github.com/runnel-fota/runnel/internal/notify"
	"github.com/runnel-fota/runnel/internal/rollout"
	"github.com/runnel-fota/runnel/internal/wire/native"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// serveConfig is what a server is started with.
type serveConfig struct {
	data, listen string
	database     string // URL; "": SQLite in data
	secretFile   string // with database, as the next
	certFile     string
	keyFile      string
	silentDevice string
	openOperator bool
	window       time.Duration
	nonceJump    uint64
	cacheBytes   int64
	maxRequests  int
	sendBuffer   int
	redirect     string
	notify       string // address; "": nobody is told
	notifySecret string // file
	blobs        blobFlags
	scrubRate    int64
	comeBack     time.Duration
	derive       deriveFlags
	tlsProxy     bool
	json         bool
	demoKeys     bool // a demo's throw-away keys are taken
	log          *slog.Logger
	out          io.Writer
}

func newServeCmd() *cobra.Command {
	c := serveConfig{}
	verbose := false
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Runs the server on a data folder until it gets SIGTERM or ctrl-C. The first start
makes the folder and an operator's token, which is printed once and kept in the
file admin.token there (mode 0600).

With --database any number of servers share one PostgreSQL database, each with the
same secret and the same blobs; any load balancer may stand in front. The URL may
also be in RUNNEL_DATABASE, where other users of the machine don't see a password.

--notify has a URL told of each rollout that stops by itself, signed with the secret of
--notify-secret-file; docs/operations.md says how to check that, and what a crash loses.

--json prints {"url":"...","admin_token":"..."} as the first line, when the server
is ready; admin_token is there at the first start only. The log goes to stderr.

--blobs keeps images and streams in a bucket, with copies of what is in use in a
folder of bounded size. Credentials are taken from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY), from AWS_PROFILE in ~/.aws/credentials, or from the cloud
that the machine is in.`,
		Example: "  runnel serve --data fleet\n  runnel serve --data fleet --listen 0.0.0.0:8443 --tls-cert c.pem --tls-key k.pem\n" +
			"  runnel serve --data fleet --blobs 's3://my-bucket/fleet?region=eu-central-1' --blob-cache-size 20GiB\n" +
			"  runnel serve --database postgres://runnel@db/runnel?sslmode=verify-full --secret-file secret.key --blobs /mnt/blobs",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.database == "" && c.data == "" {
				c.database = os.Getenv(databaseEnv)
			}
			if err := c.validate(); err != nil {
				return err
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			opts := &slog.HandlerOptions{Level: level}
			var h slog.Handler = slog.NewTextHandler(cmd.ErrOrStderr(), opts)
			if c.json {
				h = slog.NewJSONHandler(cmd.ErrOrStderr(), opts)
			}
			c.log, c.out = slog.New(h), cmd.OutOrStdout()
			return serve(cmd.Context(), c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.data, "data", "", "the data `folder`")
	f.StringVar(&c.database, "database", "", "a PostgreSQL database's `URL`, in place of --data")
	f.StringVar(&c.secretFile, "secret-file", "", "`file` of the secret that seals the device keys in --database; made at the first start")
	f.StringVar(&c.listen, "listen", "127.0.0.1:8080", "`address` to listen on; port 0 lets the system choose")
	f.BoolVar(&c.json, "json", false, "print one line of JSON when ready, and log in JSON")
	f.BoolVar(&verbose, "verbose", false, "log more")
	f.StringVar(&c.certFile, "tls-cert", "", "certificate `file` (PEM)")
	f.StringVar(&c.keyFile, "tls-key", "", "the certificate's key `file` (PEM)")
	f.StringVar(&c.silentDevice, "v1-silent-device", "", "take v1 requests without a MAC as this `device`'s; anybody can send such")
	f.BoolVar(&c.openOperator, "v1-open-operator", false, "take v1 operators' calls without a token from this machine")
	f.DurationVar(&c.window, "v1-window", v1.DefaultWindow, "how far a v1 timestamp may be off; 0 switches the check off")
	f.Uint64Var(&c.nonceJump, "v1-nonce-jump", v1.DefaultNonceJump, "how far a v1 nonce may leap")
	f.Int64Var(&c.cacheBytes, "cache-bytes", v1.DefaultCacheBytes, "memory for prepared chunks, in `bytes`")
	f.Int64Var(&c.scrubRate, "scrub-rate", checked.DefaultScrubRate, "`bytes` a second at which what is stored is checked once a day; 0: only once after a start, of a bucket not at all")
	f.IntVar(&c.maxRequests, "max-requests", httpserver.DefaultMaxRequests, "requests at `once`; those beyond get 503")
	f.IntVar(&c.sendBuffer, "send-buffer", httpserver.DefaultSendBuffer, "`bytes` that the system may hold of an answer; 0 leaves it to the system")
	f.StringVar(&c.redirect, "stream-redirect", "", "send devices to `URL`DIGEST for a stream, e.g. a CDN's; which fetches from here with ?origin=1; 'signed': to the bucket")
	c.blobs.add(cmd)
	c.derive.flags(f)
	f.StringVar(&c.notify, "notify", "", "tell `URL` of each rollout that stops by itself: a POST of JSON (docs/operations.md)")
	f.StringVar(&c.notifySecret, "notify-secret-file", "", "`file` with the secret that notifications are signed with, 16 bytes at least")
	f.DurationVar(&c.comeBack, "come-back", native.DefaultComeBack, "how long native devices wait between polls, 1m to 24h")
	f.BoolVar(&c.tlsProxy, "tls-proxy", false, "plain requests came over TLS to a proxy in front: take enrolment tokens that devices share")
	f.BoolVar(&c.demoKeys, throwAwayFlag, false, "take key lists of a demo's throw-away keys")
	if err := f.MarkHidden(throwAwayFlag); err != nil {
		panic(err) // the flag is there: it is made the line before
	}
	return cmd
}

func (c *serveConfig) validate() error {
	switch {
	case c.database != "":
		if err := c.validateDatabase(); err != nil {
			return err
		}
	case c.data == "":
		return usagef("--data is missing").withHint("name a folder for the server's data: it is made at the first start; or a PostgreSQL database with --database")
	case c.secretFile != "", c.blobs.where != "" && !c.blobs.inBucket():
		return usagef("--secret-file, and a folder for --blobs, go with --database").withHint("a data folder has its own; a bucket is written like s3://my-bucket/fleet")
	}
	switch {
	case (c.certFile == "") != (c.keyFile == ""):
		return usagef("--tls-cert and --tls-key go together")
	case c.window < 0:
		return usagef("--v1-window is negative")
	case c.nonceJump == 0:
		return usagef("--v1-nonce-jump is 0")
	case c.cacheBytes < 1:
		return usagef("--cache-bytes is not above 0")
	case c.scrubRate < 0:
		return usagef("--scrub-rate is negative")
	case c.maxRequests < 1:
		return usagef("--max-requests is not above 0")
	case c.sendBuffer < 0:
		return usagef("--send-buffer is negative")
	case c.redirect != "" && c.redirect != redirectSigned && native.CheckRedirect(c.redirect) != nil:
		return usagef("--stream-redirect: %v", native.CheckRedirect(c.redirect)).withHint("write it like https://cdn.example.com/streams/, without a query, or 'signed'")
	case c.notify != "" && notify.CheckURL(c.notify) != nil:
		return usagef("--notify: %v", notify.CheckURL(c.notify)).withHint("write it like https://hooks.example.com/runnel")
	case c.notify == "" && c.notifySecret != "":
		return usagef("--notify-secret-file goes with --notify")
	case c.comeBack < native.MinComeBack || c.comeBack > native.MaxComeBack:
		return usagef("--come-back is not 1m to 24h: devices clamp it to that")
	case c.openOperator && !loopback(c.listen):
		return usagef("--v1-open-operator needs a listener on loopback, not %s", c.listen).withHint("use --listen 127.0.0.1:8080")
	}
	if err := c.derive.validate(); err != nil {
		return err
	}
	if err := c.blobs.validate(c.database != "", c.redirect); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(c.listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return usagef("--listen %s is not an address", c.listen).withHint("write it like 127.0.0.1:8080")
	}
	if c.silentDevice != "" {
		if err := fleet.ValidateDeviceID(c.silentDevice); err != nil {
			return usagef("--v1-silent-device: %v", err)
		}
	}
	return nil
}

// loopback: nobody else can reach the address. A name other than localhost may mean anything.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// serve runs a server until ctx ends. What is opened is closed in the reverse
// order: no request is in progress when the nonces are written, and none of both
// when the store is closed.
func serve(ctx context.Context, c serveConfig) (err error) {
	hook, err := c.hook() // before anything is made
	if err != nil {
		return err
	}
	h, err := c.openHome(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	store := h.store
	stored, err := c.blobs.open(ctx, h, c.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stored.close()) }()
	images, err := openImages(ctx, stored, store, c.demoKeys, c.log)
	if err != nil {
		return err
	}
	if err := h.ensureToken(ctx); err != nil {
		return err
	}
	if err := ensureStreamKey(ctx, store, c.log); err != nil {
		return err
	}
	// The original never looked into an image, and boards other than the ESP32 live on that.
	upload := images.intake.AnyBoard()
	wire := v1.New(v1.Config{Replicas: h.replicas, Devices: store, Orders: store, Deployments: store, Catalogue: v1Catalogue{store, store}, Events: store, Tokens: store,
		Blobs: images.blobs, Publisher: upload, Rollouts: store, Log: c.log, Now: time.Now, SilentDevice: c.silentDevice, OpenOperator: c.openOperator,
		Window: c.window, NonceJump: c.nonceJump, CacheBytes: c.cacheBytes})
	mux := http.NewServeMux()
	wire.Register(mux)
	engine := &rollout.Engine{Store: store, Log: c.log, Now: time.Now, Machine: time.Now}
	if hook != nil {
		engine.Notify = hook.Notify
	}
	exchange := native.New(native.Config{Replicas: h.replicas, Devices: store, Catalogue: store, KeyLists: store, Enroller: store, Log: c.log, Now: time.Now,
		WireRaised: wire.WireRaised, TLSProxy: c.tlsProxy, ComeBack: c.comeBack})
	exchange.Register(mux)
	adminapi.Register(mux, adminapi.Config{Releases: store, Drafts: store, Signed: store, KeyLists: store, Taker: images.intake,
		Policies: store, V1Policies: store, Devices: wire.DeviceStore(), Keyring: wire.Keyring(store), EnrolTokens: store, Derivations: store, StreamKeys: store, Derives: c.derive.bases > 0, Orders: wire.Orders(), Deployments: store,
		Events: store, Tokens: store, Rollouts: store, RolloutPolicies: store, Mover: engine, Groups: store, Labels: store, Asker: &rollout.Asker{Store: store, V1: v1Catalogue{store, store}, Now: time.Now},
		Publisher: images.intake, Ready: h.ready, Now: time.Now, Log: c.log})
	objects := native.ObjectsConfig{Files: images.blobs, Index: store, Log: c.log, Redirect: c.redirect, MaxStreams: max(c.maxRequests/2, 1)}
	if c.redirect == redirectSigned {
		objects.Redirect, objects.Sign = "", stored.sign
	}
	native.NewObjects(objects).Register(mux)
	server := httpserver.New(mux, c.maxRequests, c.log)
	server.SetSendBuffer(c.sendBuffer)
	server.Keep(v1.PathChunk)
	// Before the line that says that the server is ready.
	cert, err := c.certificate()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.listen)
	if err != nil {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "can't listen on " + c.listen, Err: err,
			Hint: "another program may use the port: name another with --listen, or 0 for any"}
	}
	if err := c.warn(ctx, store); err != nil {
		return errors.Join(err, l.Close())
	}
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	go followMemory(behind)
	written := make(chan error, 1)
	go func() {
		native, scrub, rollouts, derived := make(chan error, 1), make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { native <- exchange.Run(behind) }()
		go func() { scrub <- images.scrub(behind, c.scrubRate) }()
		go func() { rollouts <- runRollouts(behind, engine, hook) }()
		go func() { derived <- c.derive.run(behind, store, images, c.log) }()
		written <- errors.Join(wire.Run(behind), <-native, <-scrub, <-rollouts, <-derived)
	}()
	// The listener takes connections from here on; Serve answers them.
	if err := c.ready(l.Addr(), h); err != nil {
		l.Close()
		stopBehind()
		return errors.Join(err, <-written)
	}
	err = server.Serve(ctx, l, cert)
	stopBehind()
	err = errors.Join(err, <-written)
	c.log.Info("stopped")
	return err
}

// certificate reads the TLS certificate; nil where there is none.
func (c *serveConfig) certificate() (*tls.Certificate, error) {
	if c.certFile == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the TLS certificate can't be used", Err: err,
			Hint: "--tls-cert and --tls-key are PEM files that belong together"}
	}
	return &cert, nil
}

// warn says what an operator should know of how it was started.
func (c *serveConfig) warn(ctx context.Context, store interface {
	Device(ctx context.Context, id string) (fleet.Device, error)
	SharedKeyDevices(ctx context.Context) (int, error)
}) error {
	if !loopback(c.listen) && c.certFile == "" {
		c.log.Warn("others can reach this server and read what it says: there is no TLS", "listen", c.listen, "hint", "give --tls-cert and --tls-key, or put a TLS proxy in front")
	}
	if c.silentDevice != "" {
		c.log.Warn("requests without a MAC are admitted: anybody can send them", "device", c.silentDevice)
		switch _, err := store.Device(ctx, c.silentDevice); fleet.CodeOf(err) {
		case "":
		case fleet.CodeNotFound:
			c.log.Warn("the silent device is not known yet", "device", c.silentDevice, "hint", "runnel devices add "+c.silentDevice+" --psk-file FILE")
		default:
			return err
		}
	}
	if c.openOperator {
		c.log.Warn("v1 operators' calls need no token from this machine: every user and program of it may publish")
	}
	shared, err := store.SharedKeyDevices(ctx)
	if err != nil {
		return err
	}
	if shared > 0 {
		c.log.Warn("devices use their product's key: each can speak in the name of the others", "devices", shared)
	}
	return nil
}

// ready tells where the server is.
func (c *serveConfig) ready(addr net.Addr, h *home) error {
	token := h.token
	scheme := "http"
	if c.certFile != "" {
		scheme = "https"
	}
	url := scheme + "://" + reachable(addr)
	if c.json {
		line := struct {
			URL   string `json:"url"`
			Token string `json:"admin_token,omitempty"`
		}{url, token}
		return json.NewEncoder(c.out).Encode(line)
	}
	text := fmt.Sprintf("Runnel serves at %s\n", url)
	if token != "" {
		text += fmt.Sprintf("\nThe operator's token, shown this once (and kept in %s):\n\n  %s\n\nNext, in another terminal:\n\n"+
			"  export RUNNEL_SERVER=%s RUNNEL_TOKEN=%s\n  runnel keys init keys --product acme/pump\n  runnel keys publish keys\n"+
			"  runnel devices add pump-1 --product acme/pump --new-native-key -o pump-1.key\n"+
			"  runnel sign IMAGE --product acme/pump --version 1.0.0 --sequence 1 --key keys/release.key -o pump.runnel\n  runnel push pump.runnel\n\n", h.tokenFile, token, url, token)
	}
	_, err := io.WriteString(c.out, text+"ctrl-C stops it.\n")
	return err
}

// reachable is an address that a client on this machine can use: an unspecified
// host is no host.
func reachable(addr net.Addr) string {
	t, ok := addr.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port))
}
