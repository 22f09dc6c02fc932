// Package fsck compares what a store says of releases with the bytes that are
// there: images, streams and manifests. It reads and never writes. It knows the
// domain and the signed formats, no database and no disk: what it needs of them it
// declares.
package fsck

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// Kinds of findings, frozen: scripts read them.
const (
	Database   = "database"
	File       = "file" // a secret, a token, a mode
	Image      = "image"
	Stream     = "stream"
	Manifest   = "manifest"
	Orphan     = "orphan"     // an image or stream that no release refers to
	Unfinished = "unfinished" // what a crash left half-written
	Unknown    = "unknown"    // a file that is none of ours
)

// Finding is something that is not as it should be, and what to do about it.
type Finding struct {
	What    string `json:"what"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	// Of an image, stream, manifest or orphan:
	Digest  string `json:"sha256,omitempty"`
	Missing bool   `json:"missing"` // false: it is there, and wrong
	// Of a release that refers to it:
	ReleaseID int64  `json:"release_id,omitempty"`
	Product   string `json:"product,omitempty"`
	Version   string `json:"version,omitempty"`
	// Harmless: it costs room and nothing else. A start of the server removes it, and so does
	// --remove-orphans.
	Harmless bool `json:"harmless"`
}

// Releases lists all that were published; product "": of all products.
type Releases interface {
	ListReleases(ctx context.Context, product string) ([]fleet.Release, error)
}

// Signed has what signed releases are made of; CodeNotFound for a manifest that is not there.
type Signed interface {
	AllStreams(ctx context.Context) ([]fleet.Stream, error)
	Manifest(ctx context.Context, digest fleet.Digest) (fleet.Manifest, error)
}

// Blobs are the bytes under their digests.
type Blobs interface {
	List(ctx context.Context) ([]fleet.Digest, error)
	// Check reads a blob and compares its digest; each is called with every piece.
	Check(ctx context.Context, d fleet.Digest, each func(bytes int) error) (size int64, err error)
	OpenBlob(ctx context.Context, d fleet.Digest) (io.ReadCloser, error)
}

// Config is what Run compares; all is required but Progress and Blobs.
type Config struct {
	Releases Releases
	Signed   Signed
	Blobs    Blobs // nil: releases and manifests are held against each other alone
	// Progress is told how many bytes are done, of how many.
	Progress func(done, total int64)
}

// Result of Run.
type Result struct {
	Checked  int // images, streams and manifests
	Bytes    int64
	Findings []Finding
	Orphans  []fleet.Digest
}

// use is what a blob is to a release.
type use struct {
	what    string
	release fleet.Release
	length  int64
	stream  *fleet.Stream
}

type run struct {
	Config
	out   Result
	total int64
}

// Run looks at everything. Its error is why it could not: the findings are what is wrong.
func Run(ctx context.Context, c Config) (Result, error) {
	r := &run{Config: c}
	if r.Progress == nil {
		r.Progress = func(int64, int64) {}
	}
	releases, err := c.Releases.ListReleases(ctx, "")
	if err != nil {
		return r.out, err
	}
	streams, err := c.Signed.AllStreams(ctx)
	if err != nil {
		return r.out, err
	}
	uses := map[fleet.Digest][]use{}
	if c.Blobs != nil {
		uses = usesOf(releases, streams)
	}
	for _, u := range uses {
		r.total += u[0].length
	}
	digests := make([]fleet.Digest, 0, len(uses))
	for d := range uses {
		digests = append(digests, d)
	}
	slices.SortFunc(digests, func(a, b fleet.Digest) int { return bytes.Compare(a[:], b[:]) })
	for _, d := range digests {
		if err := r.blob(ctx, d, uses[d]); err != nil {
			return r.out, err
		}
	}
	for _, rel := range releases {
		if err := r.manifest(ctx, rel, streams); err != nil {
			return r.out, err
		}
	}
	if c.Blobs == nil {
		return r.out, nil
	}
	return r.out, r.orphans(ctx, uses)
}

func usesOf(releases []fleet.Release, streams []fleet.Stream) map[fleet.Digest][]use {
	uses := map[fleet.Digest][]use{}
	of := map[int64]fleet.Release{}
	for _, r := range releases {
		of[r.ID] = r
		uses[r.Image.Digest] = append(uses[r.Image.Digest], use{what: Image, release: r, length: r.Image.Size})
	}
	for i, s := range streams {
		uses[s.Digest] = append(uses[s.Digest], use{what: Stream, release: of[s.ReleaseID], length: s.Length, stream: &streams[i]})
	}
	return uses
}

func (r *run) find(what string, d fleet.Digest, rel fleet.Release, missing bool, hint, format string, args ...any) {
	r.out.Findings = append(r.out.Findings, Finding{What: what, Digest: d.String(), Missing: missing, Hint: hint,
		ReleaseID: rel.ID, Product: rel.Product, Version: rel.Version,
		Message: fmt.Sprintf("the %s %s of %s %s (release %d) ", what, d, rel.Product, rel.Version, rel.ID) + fmt.Sprintf(format, args...)})
}

const (
	pushAgain = "start the server and push the release again: what is missing or damaged is replaced"
	// Of a derived stream:
	rawGoesOn = "devices go on with the raw stream by themselves; if it came with the release, push that again"
	restore   = "bring a backup back"
)

// blob checks one, for all who refer to it. It is named once: who pushes one of
// them again has it back for all.
func (r *run) blob(ctx context.Context, d fleet.Digest, uses []use) error {
	u := uses[0]
	r.out.Checked++
	begun := r.out.Bytes
	size, err := r.Blobs.Check(ctx, d, func(n int) error {
		r.out.Bytes += int64(n)
		r.Progress(min(r.out.Bytes, r.total), r.total)
		return nil
	})
	again := pushAgain
	if u.stream != nil && u.stream.Kind != fleet.StreamRaw {
		again = rawGoesOn
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fleet.CodeOf(err) == fleet.CodeBusy:
		return err // where it is stored nobody answers: nothing is known by that
	case fleet.CodeOf(err) == fleet.CodeNotFound:
		r.find(u.what, d, u.release, true, again, "is missing")
	case err != nil:
		r.find(u.what, d, u.release, false, again, "is damaged: %v", cause(err))
	}
	if err != nil {
		r.out.Bytes = begun + u.length // so that the end is reached
		return nil
	}
	for _, u := range uses {
		if size != u.length {
			r.find(u.what, d, u.release, false, restore, "has %d bytes, and the database says %d", size, u.length)
		} else if u.stream != nil {
			if err := r.chain(ctx, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// cause is what an error says beneath the domain's words.
func cause(err error) error {
	var f *fleet.Error
	if errors.As(err, &f) && f.Err != nil {
		return f.Err
	}
	return err
}

// chain holds a stream's records against its root: the file may be what was
// stored and yet not what its row says.
func (r *run) chain(ctx context.Context, u use) error {
	s := u.stream
	size, ok := payload(s)
	shape := stream.Shape{Size: size, Chunk: s.Chunk}
	if !ok || !shape.Valid() || int64(shape.FileLen()) != s.Length {
		r.find(Stream, s.Digest, u.release, false, restore, "can't have %d bytes in chunks of %d", s.Length, s.Chunk)
		return nil
	}
	f, err := r.Blobs.OpenBlob(ctx, s.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := release.CheckStream(ctx, f, shape, release.Hash(s.Root), nil); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.find(Stream, s.Digest, u.release, false, restore, "does not have the root that the database says: %v", err)
		return nil
	}
	if why := sheetSays(s, size); why != "" {
		r.find(Stream, s.Digest, u.release, false, restore, "has a stream sheet that %s: no device gets it", why)
	}
	return nil
}

// sheetSays is what is wrong with a derived stream's sheet; "": nothing.
func sheetSays(s *fleet.Stream, size uint32) string {
	if s.Kind == fleet.StreamRaw {
		return ""
	}
	e, err := release.ParseEnvelope(s.Sheet)
	var sheet *release.Sheet
	if err == nil {
		sheet, err = release.DecodeSheet(e.Payload)
	}
	switch {
	case err != nil:
		return fmt.Sprintf("can't be read (%v)", err)
	case sheet.Root != release.Hash(s.Root), sheet.Chunk != s.Chunk, sheet.Length != size, (sheet.Kind == manifest.StreamPatch) != (s.Kind == fleet.StreamPatch):
		return "speaks of another stream"
	}
	return ""
}

// payload is how many bytes a stream carries: each record but the last has a hash besides.
func payload(s *fleet.Stream) (uint32, bool) {
	if s.Chunk == 0 || s.Length <= 0 {
		return 0, false
	}
	record := int64(s.Chunk) + stream.HashSize
	n := (s.Length + stream.HashSize + record - 1) / record // the last has none: counted as if it had
	size := s.Length - (n-1)*stream.HashSize
	return uint32(size), size > 0 && size <= 1<<31
}

// manifest holds a signed release against the bytes that were signed.
func (r *run) manifest(ctx context.Context, rel fleet.Release, streams []fleet.Stream) error {
	if !rel.Signed() {
		return nil
	}
	r.out.Checked++
	d := rel.ManifestDigest
	stored, err := r.Signed.Manifest(ctx, d)
	switch {
	case fleet.CodeOf(err) == fleet.CodeNotFound:
		r.find(Manifest, d, rel, true, restore, "is missing")
		return nil
	case err != nil:
		return err
	case sha256.Sum256(stored.Envelope) != d:
		r.find(Manifest, d, rel, false, restore, "is not the one that was signed")
		return nil
	}
	e, err := release.ParseEnvelope(stored.Envelope)
	var m *release.Manifest
	if err == nil {
		m, err = release.DecodeManifest(e.Payload)
	}
	if err != nil {
		r.find(Manifest, d, rel, false, restore, "can't be read: %v", err)
		return nil
	}
	im := &m.Image
	if m.Product != rel.Product || m.Version != rel.Version || m.Epoch != rel.Epoch || m.Sequence != rel.Sequence || m.SecurityVersion != rel.SecurityVersion ||
		fleet.Digest(im.Digest) != rel.Image.Digest || int64(im.Size) != rel.Image.Size ||
		(im.Slot != nil) != rel.HasSlot || im.Slot != nil && *im.Slot != rel.Slot {
		r.find(Manifest, d, rel, false, restore, "says something else than the database")
	}
	for _, raw := range im.Streams {
		if !slices.ContainsFunc(streams, func(s fleet.Stream) bool {
			return s.Kind == fleet.StreamRaw && s.Chunk == raw.Chunk && s.Root == fleet.Digest(raw.Root)
		}) {
			r.find(Manifest, d, rel, false, pushAgain, "names a stream in chunks of %d that the database does not have", raw.Chunk)
		}
	}
	return nil
}

// orphans are what a crash left between a blob and its release.
func (r *run) orphans(ctx context.Context, uses map[fleet.Digest][]use) error {
	blobs, err := r.Blobs.List(ctx)
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if _, ok := uses[d]; ok {
			continue
		}
		r.out.Orphans = append(r.out.Orphans, d)
		r.out.Findings = append(r.out.Findings, Finding{What: Orphan, Digest: d.String(), Harmless: true,
			Message: fmt.Sprintf("no release refers to %s", d), Hint: "the server removes it when it starts, and so does --remove-orphans"})
	}
	return nil
}
