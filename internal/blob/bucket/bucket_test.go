package bucket

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// shelf of malformed URLs, each with its one defect.
var malformed = map[string]string{
	"":                                       "no scheme",
	"bucket/prefix":                          "no scheme",
	"http://bucket":                          "another scheme",
	"s3:bucket":                              "no host",
	"s3://":                                  "no bucket",
	"s3:///prefix":                           "no bucket",
	"s3://b/a//c":                            "an empty part",
	"s3://b/a/../c":                          "a part that climbs",
	"s3://b/.":                               "a part that stays",
	"s3://b#x":                               "a fragment",
	"s3://b?prefix=x":                        "a parameter of others",
	"s3://b?region=a&region=b":               "a parameter twice",
	"s3://b?path_style=perhaps":              "no bool",
	"s3://b?endpoint=storage:9000":           "an endpoint without a scheme",
	"s3://b?endpoint=ftp://storage":          "an endpoint of another kind",
	"s3://b?endpoint=http://storage/x":       "an endpoint with a path",
	"s3://b?endpoint=http://id:hush@h":       "an endpoint with credentials",
	"s3://id:hush@b":                         "credentials",
	"s3:id:hush@b":                           "credentials in another place",
	"s3://b?endpoint=%zz":                    "escapes that are none",
	"s3://[::1":                              "half an address",
	"azblob2://b":                            "a scheme that is nearly one",
	"s3://b?endpoint=http://h%3Fsecret=hush": "an endpoint with a query",
}

func TestMalformedURL(t *testing.T) {
	for text, defect := range malformed {
		err := Check(text)
		var e *fleet.Error
		if !errors.As(err, &e) || e.Code != fleet.CodeInvalid || e.Hint == "" || strings.Contains(err.Error()+e.Hint, "hush") {
			t.Errorf("%s: %q: %v", defect, text, err)
		}
	}
}

func TestURL(t *testing.T) {
	for text, want := range map[string]struct{ name, prefix string }{
		"s3://b":                          {"s3://b", ""},
		"s3://b/":                         {"s3://b", ""},
		"s3://b/fleet":                    {"s3://b/fleet", "fleet/"},
		"s3://b/a/c/?region=eu-central-1": {"s3://b/a/c", "a/c/"},
		"s3://b/x?endpoint=https://h:1&path_style=true": {"s3://b/x", "x/"},
	} {
		b, err := Open(t.Context(), Options{URL: text})
		if err != nil || b.String() != want.name || b.prefix != want.prefix {
			t.Errorf("%s: %v %v", text, b, err)
		}
	}
}

// What is taken names a bucket, has a prefix that a key can stand behind, and holds
// no credentials.
func FuzzURL(f *testing.F) {
	for text := range malformed {
		f.Add(text)
	}
	f.Add("s3://b/x?endpoint=https://h:1&region=r&path_style=true")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse(text)
		if err != nil {
			if fleet.CodeOf(err) != fleet.CodeInvalid {
				t.Errorf("%v", err)
			}
			return
		}
		if p.bucket == "" || p.prefix != "" && (!strings.HasSuffix(p.prefix, "/") || strings.HasPrefix(p.prefix, "/") || strings.Contains("/"+p.prefix, "/../")) {
			t.Errorf("%q: %+v", text, p)
		}
	})
}

// stuck is a provider whose answers do not come.
type stuck struct{ body bool } // it opens, and then nothing

func (s stuck) get(ctx context.Context, _ string) (io.ReadCloser, int64, error) {
	if !s.body {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return stuckBody{ctx}, 1000, nil
}

type stuckBody struct{ ctx context.Context }

func (b stuckBody) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, b.ctx.Err() }
func (stuckBody) Close() error               { return nil }

func wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (stuck) put(ctx context.Context, _ string, _ io.ReadSeeker, _ int64) error { return wait(ctx) }
func (s stuck) stat(ctx context.Context, _ string) (int64, time.Time, error) {
	if s.body {
		return 0, time.Time{}, fs.ErrNotExist
	}
	return 0, time.Time{}, wait(ctx)
}
func (stuck) keys(ctx context.Context, _ string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", wait(ctx)) }
}
func (stuck) remove(ctx context.Context, _ string) error { return wait(ctx) }
func (stuck) sign(ctx context.Context, _ string, _ time.Duration) (string, error) {
	return "", wait(ctx)
}

// Nothing waits for ever: each call ends with the bucket's patience, and says so;
// who goes away is told that he did.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fleet.Digest{1}
		calls := map[string]func(ctx context.Context, b *Bucket) error{
			"fetch": func(ctx context.Context, b *Bucket) error { _, _, err := b.Fetch(ctx, d); return err },
			"check": func(ctx context.Context, b *Bucket) error { _, err := b.Check(ctx, d, nil); return err },
			"upload": func(ctx context.Context, b *Bucket) error {
				_, err := b.Upload(ctx, d, strings.NewReader(""), 0)
				return err
			},
			"list":   func(ctx context.Context, b *Bucket) error { _, err := b.List(ctx); return err },
			"delete": func(ctx context.Context, b *Bucket) error { return b.Delete(ctx, d) },
			"claim":  func(ctx context.Context, b *Bucket) error { return b.Claim(ctx, "x") },
			"fresh":  func(ctx context.Context, b *Bucket) error { _, err := b.Fresh(ctx, d, 1, time.Now()); return err },
			"sign":   func(ctx context.Context, b *Bucket) error { _, err := b.SignedURL(ctx, d, 1); return err },
		}
		for name, call := range calls {
			for _, body := range []bool{false, true} {
				if body && name != "check" && name != "upload" {
					continue // the others read no body
				}
				b := &Bucket{name: "s3://b", objects: stuck{body}, patience: DefaultPatience}
				begun := time.Now()
				err := call(t.Context(), b)
				if took := time.Since(begun); fleet.CodeOf(err) != fleet.CodeBusy || !strings.Contains(err.Error(), "too slow") || took != DefaultPatience {
					t.Errorf("%s: after %s: %v", name, took, err)
				}
				gone, cancel := context.WithTimeout(t.Context(), time.Second)
				if err := call(gone, b); !errors.Is(err, context.DeadlineExceeded) || fleet.CodeOf(err) == fleet.CodeBusy {
					t.Errorf("%s, and the caller is gone: %v", name, err)
				}
				cancel()
			}
		}
	})
}
