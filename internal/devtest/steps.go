package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// oldGo is the Go that core/go.mod promises to work with, and that TinyGo reads
// the standard library from (docs/design/tinygo.md).
const oldGo = "go1.23.12"

var steps = []step{
	{"format", "gofmt has nothing to change", stepFormat},
	{"build", "every package, and the program without cgo and without the workspace", stepBuild},
	{"vet", "go vet on all modules", stepVet},
	{"staticcheck", "staticcheck, at the version of tools/go.mod", stepStaticcheck},
	{"core-go1.23", "core type-checks with the oldest Go that it promises", stepOldGo},
	{"test", "unit, architecture, command line and end-to-end tests, and the seeds of all fuzz targets", stepTest},
	{"race", "the same tests under the race detector, where there is more than one goroutine", stepRace},
	{"test-s3", "images in a bucket: suites and updates on an S3-compatible server, versitygw; two servers on it and on PostgreSQL", stepS3},
	{"size-server", "the program, stripped, is below its limit", stepSizeServer},
	{"test-postgres", "stores, wires and the program on PostgreSQL, and servers that share one", stepPostgres},
	{"demo", "runnel demo --json, and its figures within their bounds", stepDemo},
	{"tinygo-check", "core links for a microcontroller without a heap", stepTinyGo},
	{"firmware", "firmware in an emulated chip, and core's tests inside it", stepFirmware},
	{"fuzz", "new inputs for every fuzz target", stepFuzz},
}

// stopGrace is how long an interrupted program may take to clean up.
const stopGrace = 10 * time.Second

// command is a program in the folder dir below the root, its output shown.
func (e *env) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Join(e.root, dir)
	cmd.Env = os.Environ()
	cmd.Stdout = e.out
	cmd.Stderr = e.out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopGrace
	return cmd
}

// output is what a program prints on stdout.
func (e *env) output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := e.command(ctx, dir, name, args...)
	cmd.Stdout = nil
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// cacheDir is the project's folder in the user's cache folder.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "runnel")
	return dir, os.MkdirAll(dir, 0o755)
}

func exe(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}

func stepFormat(ctx context.Context, e *env) result {
	goroot, err := e.output(ctx, ".", "go", "env", "GOROOT")
	if err != nil {
		return fail("go env GOROOT: %v", err)
	}
	// The gofmt of the Go that builds, not another one that is first on PATH.
	out, err := e.output(ctx, ".", filepath.Join(goroot, "bin", exe("gofmt")), "-l", ".")
	if err != nil {
		return fail("gofmt: %v", err)
	}
	if out != "" {
		fmt.Fprintln(e.out, out)
		return fail("gofmt would change %d files", len(strings.Split(out, "\n")))
	}
	return pass("")
}

func stepBuild(ctx context.Context, e *env) result {
	if err := e.command(ctx, ".", "go", "build", "./...", "./core/...").Run(); err != nil {
		return fail("go build: %v", err)
	}
	cmd := e.command(ctx, ".", "go", "build", "-o", os.DevNull, "./cmd/runnel")
	cmd.Env = append(cmd.Env, "GOWORK=off", "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return fail("GOWORK=off CGO_ENABLED=0 go build ./cmd/runnel: %v", err)
	}
	return pass("")
}

func stepVet(ctx context.Context, e *env) result {
	if err := e.command(ctx, ".", "go", "vet", "./...", "./core/...").Run(); err != nil {
		return fail("go vet: %v", err)
	}
	for _, module := range otherModules {
		cmd := e.command(ctx, module, "go", "vet", "./...")
		cmd.Env = append(cmd.Env, "GOWORK=off")
		if err := cmd.Run(); err != nil {
			return fail("go vet in %s: %v", module, err)
		}
	}
	return pass("")
}

// otherModules are not in the workspace. Of firmware they see what is not for TinyGo
// only: the rest is compiled by the step of its name.
var otherModules = []string{"tools/tinygo/check", "firmware"}

func stepStaticcheck(ctx context.Context, e *env) result {
	bin, err := buildStaticcheck(ctx, e)
	if err != nil {
		return e.missing("staticcheck can't be built: %v", err)
	}
	if err := e.command(ctx, ".", bin, "./...", "./core/...").Run(); err != nil {
		return fail("staticcheck: %v", err)
	}
	for _, module := range otherModules {
		cmd := e.command(ctx, module, bin, "./...")
		cmd.Env = append(cmd.Env, "GOWORK=off")
		if err := cmd.Run(); err != nil {
			return fail("staticcheck in %s: %v", module, err)
		}
	}
	return pass("")
}

// buildStaticcheck builds the version that tools/go.mod names, once for each
// content of tools/go.sum and each Go.
func buildStaticcheck(ctx context.Context, e *env) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(filepath.Join(e.root, "tools", "go.sum"))
	if err != nil {
		return "", err
	}
	version, err := e.output(ctx, ".", "go", "env", "GOVERSION", "GOARCH")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append(sums, version...))
	bin := filepath.Join(dir, exe("staticcheck-"+hex.EncodeToString(sum[:8])))
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	cmd := e.command(ctx, "tools", "go", "build", "-o", bin, "honnef.co/go/tools/cmd/staticcheck")
	cmd.Env = append(cmd.Env, "GOWORK=off")
	return bin, cmd.Run()
}

func stepOldGo(ctx context.Context, e *env) result {
	env := []string{"GOTOOLCHAIN=" + oldGo, "GOWORK=off"}
	probe := e.command(ctx, "core", "go", "version")
	probe.Env = append(probe.Env, env...)
	if !e.ci {
		// Only if it was fetched before: nobody asked for 70 MB.
		probe.Env = append(probe.Env, "GOPROXY=off")
	}
	var said bytes.Buffer
	probe.Stdout, probe.Stderr = &said, &said
	if err := probe.Run(); err != nil {
		return e.missing("%s is not here ('make core-go1.23' fetches it)", oldGo)
	}
	cmd := e.command(ctx, "core", "go", "vet", "./...")
	cmd.Env = append(cmd.Env, env...)
	if err := cmd.Run(); err != nil {
		return fail("go vet with %s: %v", oldGo, err)
	}
	return pass("")
}

func stepTest(ctx context.Context, e *env) result {
	packages, err := e.hostPackages(ctx)
	if err != nil {
		return fail("go list: %v", err)
	}
	// Vet has a step of its own.
	return goTest(ctx, e, nil, append([]string{"-vet=off", "-skip", apart}, packages...)...)
}

func stepRace(ctx context.Context, e *env) result {
	cc, err := e.output(ctx, ".", "go", "env", "CC")
	if err != nil {
		return fail("go env CC: %v", err)
	}
	compiler := strings.Fields(cc)
	if len(compiler) == 0 {
		return e.missing("the race detector needs a C compiler")
	}
	if _, err := exec.LookPath(compiler[0]); err != nil {
		return e.missing("the race detector needs a C compiler: %v", err)
	}
	probe := e.command(ctx, ".", "go", "list", "-race", "errors")
	probe.Env = append(probe.Env, "CGO_ENABLED=1")
	var said bytes.Buffer
	probe.Stdout, probe.Stderr = &said, &said
	if err := probe.Run(); err != nil {
		return e.missing("no race detector for this platform: %s", bytes.TrimSpace(said.Bytes()))
	}
	packages, err := e.hostPackages(ctx)
	if err != nil {
		return fail("go list: %v", err)
	}
	packages = slices.DeleteFunc(packages, func(p string) bool { return raceless.MatchString(p) })
	return goTest(ctx, e, []string{"CGO_ENABLED=1"}, append([]string{"-vet=off", "-race", "-short", "-timeout", raceTime.String(), "-skip", apart + "|" + racelessTests}, packages...)...)
}

// What has one goroutine has no race: core starts none (archtest sees to it), nor do the
// chips that are simulated below it, the encoder of patches, and sweeps of boards are the same code
// again and again. They took more than a third of the step.
var raceless = regexp.MustCompile(`/(core(/.*)?|internal/delta|sim/(nor|rv32|oracletest))$`)

// raceTime bounds the tests of one package: the program's take half of it on two cores that others use.
const raceTime = 20 * time.Minute

// racelessTests are the sweeps. Those of sim/crash have a goroutine a processor, which share nothing but what
// they hand over: TestTorture has the same.
const racelessTests = "^(TestSweep|TestTwoCutsInSnapshots|TestSweepFindsLostSnapshots|TestSweepFindsBrokenUpdaters|TestNativeCutEverywhere|TestAlternatingOffers)$"

// tinyGoPrograms are what tools/tinygo/setup.sh can't do without.
var tinyGoPrograms = []string{"bash", "gcc", "clang-19", "ld.lld-19", "arm-none-eabi-gcc"}

// lacks is the first program that is not here, "" if all are.
func lacks(programs ...string) string {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return p
		}
	}
	return ""
}

func stepTinyGo(ctx context.Context, e *env) result {
	if p := lacks(tinyGoPrograms...); p != "" {
		return e.missing("%s not found; 'make tinygo' installs it, docs/design/tinygo.md says what for", p)
	}
	if err := e.command(ctx, ".", "go", "run", "./internal/tinygocheck").Run(); err != nil {
		return fail("tinygocheck: %v", err)
	}
	return pass("")
}

// emulated are the packages whose tests run firmware in an emulator, and emulatedTests
// such tests of others, those in emulatedIn. They have a step of their own: they take
// minutes, and the race detector sees nothing of a chip.
var emulated = []string{"sim/minimal", "sim/qemu"}

const (
	emulatedTests = "^TestEmulated"
	emulatedIn    = "./cmd/runnel"

	// apart are all tests that have a step of their own.
	apart = emulatedTests + "|" + s3Tests + "|" + postgresTests
)

// hostPackages are all others.
func (e *env) hostPackages(ctx context.Context) ([]string, error) {
	out, err := e.output(ctx, ".", "go", "list", "./...", "./core/...")
	if err != nil {
		return nil, err
	}
	return without(strings.Fields(out), slices.Concat(emulated, postgresPackages)), nil
}

// postgresPackages and the tests of others that begin so want a PostgreSQL server: they have
// a step of their own. wirePackages run there once more, with their stores in it.
var (
	postgresPackages = []string{"internal/store/postgres"}
	wirePackages     = []string{"internal/wire/native", "internal/wire/v1"}
)

const (
	postgresTests = "^Test(Postgres|Replicas)"
	// oneServerTests are of what a server keeps in memory that has its store alone.
	oneServerTests = "^Test(ManyDevices|WriteBehind)$"
)

// postgresTime ends a step that hangs.
const postgresTime = 20 * time.Minute

func stepPostgres(ctx context.Context, e *env) result {
	servers, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if len(servers) == 0 && lacks("initdb") != "" {
		return e.missing("PostgreSQL's server not found; 'bash tools/postgres.sh' installs it")
	}
	ctx, cancel := context.WithTimeout(ctx, postgresTime)
	defer cancel()
	paths := func(packages []string) (list []string) {
		for _, p := range packages {
			list = append(list, "./"+p)
		}
		return list
	}
	args := []string{"-vet=off", "-count=1", "-timeout", postgresTime.String()}
	runs := []result{
		goTest(ctx, e, nil, append(slices.Clone(args), paths(postgresPackages)...)...),
		goTest(ctx, e, []string{"RUNNEL_TEST_POSTGRES=1"}, append(append(slices.Clone(args), "-skip", oneServerTests), paths(wirePackages)...)...),
		goTest(ctx, e, nil, append(slices.Clone(args), "-run", postgresTests, "./cmd/runnel")...),
	}
	notes := make([]string, len(runs))
	for i, r := range runs {
		if r.outcome != passed {
			return r
		}
		notes[i] = r.note
	}
	return pass("stores: " + notes[0] + "; wires: " + notes[1] + "; program: " + notes[2])
}

// without are the packages but for some of ours.
func without(packages, ours []string) (list []string) {
	for _, p := range packages {
		if !slices.Contains(ours, shortPackage(p)) {
			list = append(list, p)
		}
	}
	return list
}

// firmwareTime ends a step that hangs.
const firmwareTime = 40 * time.Minute

func stepFirmware(ctx context.Context, e *env) result {
	if p := lacks(append([]string{"qemu-system-arm"}, tinyGoPrograms...)...); p != "" {
		return e.missing("%s not found; 'make tinygo' installs it. No firmware was run", p)
	}
	ctx, cancel := context.WithTimeout(ctx, firmwareTime)
	defer cancel()
	args := []string{"-vet=off", "-timeout", firmwareTime.String(), "-p", "1"}
	all := slices.Clone(args)
	for _, p := range emulated {
		all = append(all, "./"+p)
	}
	e.tests.keep = true
	runs := []result{
		goTest(ctx, e, nil, all...),
		goTest(ctx, e, nil, append(args, "-run", emulatedTests, emulatedIn)...),
	}
	e.tests.keep = false
	inside := e.command(ctx, ".", "go", "run", "./internal/tinygocheck", "-test").Run()
	for _, line := range e.tests.said {
		fmt.Fprintln(e.out, line)
	}
	for _, r := range runs {
		if r.outcome != passed {
			return r
		}
	}
	if inside != nil {
		return fail("core's tests inside the chip: %v", inside)
	}
	if err := e.command(ctx, ".", "go", "run", "./sim/qemu/size").Run(); err != nil {
		return fail("the firmware's size: %v", err)
	}
	return pass(runs[0].note + "; " + emulatedIn + ": " + runs[1].note)
}
