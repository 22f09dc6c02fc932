package main

import (
	"bufio"
	"crypto/ed25519"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/board"
)

// TestMain lets the test binary be runnel where a script calls it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"runnel": main, "testsigner": testSigner, "fleet": scriptFleet, "await": scriptAwait, "awaitderived": scriptAwaitDerived})
}

// testSigner is somebody's signing program: testsigner KEYFILE [hex].
func testSigner() {
	key, err := release.ReadKey(os.Args[1], nil)
	if err != nil {
		panic(err)
	}
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	sig := ed25519.Sign(key, message)
	if len(os.Args) > 2 {
		sig = []byte(hex.EncodeToString(sig) + "\n")
	}
	os.Stdout.Write(sig)
}

// TestScripts runs testdata/script: what a user types and sees. Their own commands,
// beside runnel and the program testsigner:
//
//	exec fleet add|poll N ...             makes boards pump-N, of hardware r1 or, where N is even, r2; has them poll once
//	badpatch FILE KEY OLD OUT             writes a release file whose patch from OLD is none, under a good signature
//	exec await ID STATE PHASE             waits for a rollout
//	exec awaitderived VERSION STATE       waits for the first derived stream that the server makes of a release
//	image FILE VERSION BEHAVIOUR [SIZE]   builds an app image
//	rawimage FILE ADDRESS TEXT            builds a raw image that runs at an address
//	hook                                  starts a receiver of notifications; sets HOOK to its address
//	hooked FILE                           waits for a notification, writes its signature and its body into a file
//	keyname FILE                          sets KEY to the name of a public key
//	server [flag ...]                     starts a server; sets RUNNEL_SERVER and RUNNEL_TOKEN
//	shutdown                              ends it as an operator would (SIGTERM); stop ends the script
//	crash                                 ends it as a power cut would (SIGKILL)
//	spoil FILE OFFSET HEX                 writes bytes into a file
//	spoilblob FOLDER                      flips a bit of a blob in a data folder
//	age FILE DURATION                     makes a file older
func TestScripts(t *testing.T) {
	runScripts(t, &scriptServers{}, testscript.Params{Dir: filepath.Join("testdata", "script")})
}

// TestPostgresScripts runs those whose servers are used for more than their data folders,
// with servers on PostgreSQL, and testdata/postgres. $DATABASE is a script's own;
//
//	server sqlite [flag ...]              starts a server on a data folder all the same
//	sql STATEMENT                         changes the database past the servers
func TestPostgresScripts(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "postgres", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range []string{"boardnative", "boardpage", "native", "rollout", "update"} {
		files = append(files, filepath.Join("testdata", "script", name+".txtar"))
	}
	runScripts(t, &scriptServers{pg: pgtest.Start(t, false)}, testscript.Params{Files: files})
}

func runScripts(t *testing.T, s *scriptServers, p testscript.Params) {
	s.running = map[*testscript.TestScript]*exec.Cmd{}
	hooks := &scriptHooks{came: map[*testscript.TestScript]chan hooked{}}
	p.Cmds = s.commands()
	p.Cmds["hook"], p.Cmds["hooked"] = hooks.start, hooks.await
	p.Setup = func(env *testscript.Env) error {
		env.Setenv("PSK", strings.Repeat("42", 32))
		if s.pg != nil {
			env.Setenv(scriptDatabase, s.pg.URL(s.pg.Database(t)))
		}
		return nil
	}
	testscript.Run(t, p)
}

// commands of the scripts.
func (s *scriptServers) commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"image":    scriptImage,
		"rawimage": scriptRawImage,
		"keyname":  scriptKeyName,
		"server":   s.start,
		"shutdown": func(ts *testscript.TestScript, _ bool, _ []string) { s.end(ts, syscall.SIGTERM) },
		"crash":    func(ts *testscript.TestScript, _ bool, _ []string) { s.end(ts, syscall.SIGKILL) },
		"spoil":    scriptSpoil,

		"spoilblob": scriptSpoilBlob,
		"age":       scriptAge,
		"sql":       scriptSQL,
		"badpatch":  scriptBadPatch,
	}
}

func scriptImage(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("image FILE VERSION BEHAVIOUR [SIZE]")
	}
	size := 64 << 10
	if len(args) > 3 {
		_, err := fmt.Sscan(args[3], &size)
		ts.Check(err)
	}
	img, err := board.BuildImage(board.ImageSpec{Size: size, Chip: esp32.ChipESP32, Project: "script", Version: args[1],
		Behave: board.Behaviour(args[2]), Seed: 1})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), img, 0o644))
}

func scriptRawImage(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("rawimage FILE ADDRESS TEXT")
	}
	at, err := strconv.ParseUint(args[1], 0, 32)
	ts.Check(err)
	img := make([]byte, boot.RawHeaderSize, 4<<10)
	for len(img) < cap(img)-len(args[2]) {
		img = append(img, args[2]...)
	}
	le := binary.LittleEndian
	le.PutUint32(img[12:], uint32(at))
	le.PutUint32(img[16:], uint32(at)+boot.RawHeaderSize|1)
	le.PutUint32(img[20:], 0x20002000)
	ts.Check(boot.SealRaw(img))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), img, 0o644))
}

func scriptKeyName(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("keyname FILE")
	}
	keys, err := release.ReadPublic(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("KEY", release.KeyName(keys[0]))
}

func scriptSpoil(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("spoil FILE OFFSET HEX")
	}
	var off int64
	_, err := fmt.Sscan(args[1], &off)
	ts.Check(err)
	b, err := hex.DecodeString(args[2])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(b, off)
	ts.Check(err)
	ts.Check(f.Close())
}

func scriptSpoilBlob(ts *testscript.TestScript, _ bool, args []string) {
	blobs, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "blobs", strings.Repeat("[0-9a-f]", 64)))
	ts.Check(err)
	if len(blobs) == 0 {
		ts.Fatalf("no blob in %s", args[0])
	}
	b, err := os.ReadFile(blobs[0])
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Chmod(blobs[0], 0o600))
	ts.Check(os.WriteFile(blobs[0], b, 0o600))
}

func scriptAge(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("age FILE DURATION")
	}
	by, err := time.ParseDuration(args[1])
	ts.Check(err)
	at := time.Now().Add(-by)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
}

func scriptSQL(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("sql STATEMENT")
	}
	db, err := sql.Open("pgx", ts.Getenv(scriptDatabase))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(args[0])
	ts.Check(err)
}

// scriptServers are the servers of the scripts that run side by side.
type scriptServers struct {
	pg *pgtest.Server // nil: they are on SQLite

	mu      sync.Mutex
	running map[*testscript.TestScript]*exec.Cmd
}

// scriptDatabase is the variable that names a script's database.
const scriptDatabase = "DATABASE"

// home turns a server's arguments into flags, with those that say where it keeps its fleet.
func (s *scriptServers) home(ts *testscript.TestScript, args []string) []string {
	data := ts.MkAbs("data")
	switch {
	case s.pg == nil:
		return append([]string{"--data", data}, args...)
	case len(args) > 0 && args[0] == "sqlite":
		return append([]string{"--data", data}, args[1:]...)
	}
	ts.Check(os.MkdirAll(data, 0o700))
	return append([]string{"--database", ts.Getenv(scriptDatabase), "--secret-file", filepath.Join(data, "secret.key"), "--blobs", filepath.Join(data, "blobs")}, args...)
}

// start waits for the server's first line: it is ready when it is printed.
func (s *scriptServers) start(ts *testscript.TestScript, _ bool, args []string) {
	bin, err := exec.LookPath("runnel")
	ts.Check(err)
	cmd := exec.Command(bin, append([]string{"serve", "--json", "--listen", "127.0.0.1:0"}, s.home(ts, args)...)...)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	s.mu.Lock()
	s.running[ts] = cmd
	s.mu.Unlock()
	ts.Defer(func() { s.end(ts, syscall.SIGKILL) })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	ts.Check(err)
	var first struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	ts.Check(json.Unmarshal(line, &first))
	ts.Setenv("RUNNEL_SERVER", first.URL)
	if first.Token != "" {
		ts.Setenv("RUNNEL_TOKEN", first.Token)
	}
}

func (s *scriptServers) end(ts *testscript.TestScript, sig syscall.Signal) {
	s.mu.Lock()
	cmd := s.running[ts]
	delete(s.running, ts)
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	ts.Check(cmd.Process.Signal(sig))
	if err := cmd.Wait(); err != nil && sig == syscall.SIGTERM {
		ts.Fatalf("server: %v", err)
	}
}
