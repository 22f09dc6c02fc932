package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/blob/s3test"
	"github.com/runnel-fota/runnel/internal/fleet"
)

func openAt(t *testing.T, url string) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A bucket is one installation's; a prefix of it another's.
func TestS3Claim(t *testing.T) {
	s := s3test.Start(t)
	ctx := context.Background()
	one, two := openAt(t, s.URL("")), openAt(t, s.URL("two"))
	for range 2 {
		for b, owner := range map[*Bucket]string{one: "a", two: "b"} {
			if err := b.Claim(ctx, owner); err != nil {
				t.Fatal(err)
			}
			if err := b.Claim(ctx, "other"); fleet.CodeOf(err) != fleet.CodeConflict {
				t.Errorf("another's: %v", err)
			}
		}
	}
	// What lies below a prefix is in the list of that alone.
	content := blobtest.Content(1, 70_000)
	d := fleet.Digest(sha256.Sum256(content))
	if created, err := two.Upload(ctx, d, bytes.NewReader(content), 70_000); err != nil || !created {
		t.Fatal(created, err)
	}
	if err := os.WriteFile(s.File("two/notes.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	list, strangers, err := two.Look(ctx)
	if err != nil || len(list) != 1 || list[0] != d || len(strangers) != 1 || strangers[0] != "notes.txt" {
		t.Errorf("%v %v %v", list, strangers, err)
	}
	if list, err := one.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}

	// The age is what keeps a replica from removing what another is about to publish.
	for age, want := range map[time.Duration]bool{time.Hour: true, -time.Hour: false} {
		if fresh, err := two.Fresh(ctx, d, age, time.Now()); err != nil || fresh != want {
			t.Errorf("%s: %v %v", age, fresh, err)
		}
	}

	// Anybody may read what is signed, in ranges too, and nothing else.
	u, err := two.SignedURL(ctx, d, time.Hour)
	if err != nil || strings.Contains(u, s3test.SecretKey) {
		t.Fatalf("%s %v", u, err)
	}
	get := func(url string) (int, []byte) {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=100-199")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, body
	}
	if status, body := get(u); status != 206 || !bytes.Equal(body, content[100:200]) {
		t.Errorf("signed: %d, %d bytes", status, len(body))
	}
	if status, _ := get(strings.Replace(u, d.String(), "runnel-owner", 1)); status != 403 {
		t.Errorf("another object under that signature: %d", status)
	}
	plain, _, _ := strings.Cut(u, "?")
	if status, _ := get(plain); status != 403 {
		t.Errorf("without a signature: %d", status)
	}
}

// What is wrong is said, with what to do.
func TestS3Wrong(t *testing.T) {
	s := s3test.Start(t)
	ctx := context.Background()
	for name, c := range map[string]struct{ url, secret, says, hint string }{
		"bucket": {strings.Replace(s.URL(""), "fleet", "nowhere", 1), s3test.SecretKey, "refuses", "make the bucket first"},
		"key":    {s.URL(""), "a-wrong-secret", "refuses", "AWS_ACCESS_KEY_ID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_SECRET_ACCESS_KEY", c.secret)
			b := openAt(t, c.url)
			err := b.Claim(ctx, "x")
			var e *fleet.Error
			if e, _ = err.(*fleet.Error); e == nil || e.Code != fleet.CodeBusy || !strings.Contains(e.Message, c.says) || !strings.Contains(e.Hint, c.hint) || strings.Contains(err.Error(), c.secret) {
				t.Errorf("%v", err)
			}
		})
	}
}
