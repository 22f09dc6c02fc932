package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/release"
)

// scriptBadPatch is a command of the scripts: badpatch FILE KEY OLD OUT. OUT is the release file
// with one derived stream, which says that it is a patch from OLD and is none, under a good signature.
func scriptBadPatch(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("badpatch FILE KEY OLD OUT")
	}
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	var image memorySpool
	c, err := release.Verify(context.Background(), f, nil, release.Options{Unsigned: true, Spool: &image})
	ts.Check(err)
	key, err := release.ReadKey(ts.MkAbs(args[1]), nil)
	ts.Check(err)
	old, err := os.ReadFile(ts.MkAbs(args[2]))
	ts.Check(err)
	junk := bytes.Repeat([]byte("this is no patch"), 40)
	s := release.Sheet{ImageRoot: c.Manifest.Image.Streams[0].Root, Kind: manifest.StreamPatch, Profile: 1, RAM: 1, BaseDigest: sha256.Sum256(old), BaseSize: uint32(len(old)), Length: uint32(len(junk)), Chunk: 1024}
	var file bytes.Buffer
	root, _, _, err := release.BuildStream(&file, bytes.NewReader(junk), s.Length, s.Chunk)
	ts.Check(err)
	s.Root = root
	payload, err := s.Encode()
	ts.Check(err)
	sheet, err := release.Sign(context.Background(), manifest.KindSheet, payload, release.NewKeySigner(key))
	ts.Check(err)
	out, err := os.Create(ts.MkAbs(args[3]))
	ts.Check(err)
	defer out.Close()
	ts.Check(release.Write(out, &release.File{KeyList: c.KeyList, Manifest: c.ManifestEnvelope, Image: bytes.NewReader(image.p), Size: int64(len(image.p)),
		Derived: []release.DerivedFile{{Sheet: sheet, Stream: &file, Size: int64(file.Len())}}}))
}

// scriptAwaitDerived is a program of the scripts: awaitderived VERSION STATE.
func scriptAwaitDerived() {
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	c, err := client.New(os.Getenv("RUNNEL_SERVER"), os.Getenv("RUNNEL_TOKEN"))
	if err != nil {
		panic(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := c.Releases(ctx, "", "")
		var d client.ReleaseDetail
		for _, r := range list {
			if err == nil && r.Version == os.Args[1] {
				d, err = c.ReleaseDetail(ctx, r.ID)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailed)
		}
		if d.Derived != nil && len(d.Derived.List) > 0 && d.Derived.List[0].State == os.Args[2] {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprintf(os.Stderr, "%s: %+v\n", os.Args[1], d.Derived)
			os.Exit(exitFailed)
		}
	}
}
