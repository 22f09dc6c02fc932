package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Steps of the server: what it needs from outside, and what it weighs.

const (
	// versityGW is the S3-compatible server of the tests, pinned; the Go command holds it against
	// the checksum database. It is no part of the program.
	versityGW        = "github.com/versity/versitygw/cmd/versitygw"
	versityGWVersion = "v1.8.0"

	s3Tests = "^TestS3"
	s3Time  = 10 * time.Minute

	// maxServer is what the program may weigh, stripped, in bytes: 35 MB.
	maxServer = 35_000_000
)

// s3Packages have tests that speak to it.
var s3Packages = []string{"./internal/blob/bucket", "./internal/blob/cache", "./cmd/runnel"}

func stepS3(ctx context.Context, e *env) result {
	bin, built, err := buildVersityGW(ctx, e)
	if err != nil {
		return e.missing("%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s3Time)
	defer cancel()
	// gocloudtest: the adapter to other makers' storage, on a bucket in memory.
	r := goTest(ctx, e, []string{"RUNNEL_VERSITYGW=" + bin}, append([]string{"-vet=off", "-count=1", "-tags", "gocloudtest", "-timeout", s3Time.String(), "-run", s3Tests}, s3Packages...)...)
	if r.outcome == passed && built > 0 {
		r.note += fmt.Sprintf("; versitygw %s was built in %.1f s", versityGWVersion, built.Seconds())
	}
	return r
}

// buildVersityGW builds it once. A user gets it when he asks for it, with 'make
// test-s3': nobody else asked for hundreds of modules.
func buildVersityGW(ctx context.Context, e *env) (path string, took time.Duration, err error) {
	dir, err := cacheDir()
	if err != nil {
		return "", 0, err
	}
	dir = filepath.Join(dir, "versitygw-"+versityGWVersion)
	path = filepath.Join(dir, exe("versitygw"))
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, 0, err
	}
	if !e.ci {
		return "", 0, errors.New("versitygw is not here ('make test-s3' builds it). No bucket was tried")
	}
	begun := time.Now()
	// The Go command puts a program where it belongs once all of it is there.
	cmd := e.command(ctx, ".", "go", "install", "-ldflags=-s -w", versityGW+"@"+versityGWVersion)
	cmd.Env = append(cmd.Env, "GOBIN="+dir, "GOWORK=off", "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return "", 0, fmt.Errorf("go install %s@%s: %w", versityGW, versityGWVersion, err)
	}
	return path, time.Since(begun), nil
}

func stepSizeServer(ctx context.Context, e *env) result {
	dir, err := os.MkdirTemp("", "runnel-size-")
	if err != nil {
		return fail("%v", err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, exe("runnel"))
	cmd := e.command(ctx, ".", "go", "build", "-ldflags=-s -w", "-o", bin, "./cmd/runnel")
	cmd.Env = append(cmd.Env, "GOWORK=off", "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return fail("go build: %v", err)
	}
	st, err := os.Stat(bin)
	if err != nil {
		return fail("%v", err)
	}
	return weighed(st.Size())
}

// weighed judges the program's size, in bytes.
func weighed(size int64) result {
	note := fmt.Sprintf("%s bytes, the limit is %s", grouped(size), grouped(maxServer))
	if size >= maxServer {
		return fail("%s: see docs/adr/0006-object-storage.md for what weighs how much, and what can be left out", note)
	}
	return pass(note)
}

// grouped is a number in groups of three digits.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
