package bucket

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Why not gocloud.dev here: docs/adr/0006-object-storage.md.

const (
	amazon = "https://s3.amazonaws.com"
	// s3Tries of a request in all: a storage that is away is told to devices, not waited for.
	s3Tries     = 3
	dialTimeout = 5 * time.Second
	// objectCache is what a CDN in front of the bucket may keep: a name is the content's digest.
	objectCache = "public, max-age=31536000, immutable, no-transform"
)

// s3 is a bucket behind the S3 protocol.
type s3 struct {
	client *minio.Client
	core   minio.Core
	bucket string
}

// s3Place is where a bucket is.
type s3Place struct {
	host, region string
	secure       bool
	lookup       minio.BucketLookupType
}

func s3Options(p place) (s3Place, error) {
	wrong := func(format string, args ...any) (s3Place, error) {
		return s3Place{}, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf(format, args...), Hint: urlHint}
	}
	endpoint := p.query.Get("endpoint")
	o := s3Place{region: p.query.Get("region")}
	if endpoint == "" {
		endpoint = amazon
	} else if o.region == "" {
		o.region = "us-east-1" // what storage of other makers takes: to ask for it is a right more
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return wrong("the endpoint is no URL of a host")
	}
	o.host, o.secure = u.Host, u.Scheme == "https"
	if text := p.query.Get("path_style"); text != "" {
		in, err := strconv.ParseBool(text)
		if err != nil {
			return wrong("path_style is %q, not true or false", text)
		}
		o.lookup = minio.BucketLookupDNS
		if in {
			o.lookup = minio.BucketLookupPath
		}
	}
	return o, nil
}

func openS3(_ context.Context, p place) (objects, error) {
	o, err := s3Options(p)
	if err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(o.secure)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	if o.region == "" {
		o.region = os.Getenv("AWS_REGION")
	}
	client, err := minio.New(o.host, &minio.Options{
		// Where Amazon's own tools look, in their order; the last of them asks the machine's cloud.
		Creds: credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Timeout: dialTimeout}}}),
		Secure: o.secure, Transport: transport, Region: o.region, BucketLookup: o.lookup, MaxRetries: s3Tries})
	if err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "this bucket can't be opened", Err: err, Hint: urlHint}
	}
	return &s3{client, minio.Core{Client: client}, p.bucket}, nil
}

func (s *s3) get(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	// Core's is one request; Client's is a goroutine and reads behind the caller's back.
	body, info, _, err := s.core.GetObject(ctx, s.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, s3Error(err)
	}
	return body, info.Size, nil
}

func (s *s3) put(ctx context.Context, key string, src io.ReadSeeker, size int64) error {
	// In one request, so that an end in the middle leaves no parts that cost money and are in no
	// list; with an MD5, so that the storage refuses what was altered on the way.
	_, err := s.client.PutObject(ctx, s.bucket, key, src, size, minio.PutObjectOptions{
		DisableMultipart: true, SendContentMd5: true, ContentType: "application/octet-stream", CacheControl: objectCache})
	return s3Error(err)
}

func (s *s3) stat(ctx context.Context, key string) (int64, time.Time, error) {
	info, err := s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
	return info.Size, info.LastModified, s3Error(err)
}

func (s *s3) keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix}) {
			if !yield(o.Key, s3Error(o.Err)) || o.Err != nil {
				return
			}
		}
	}
}

func (s *s3) remove(ctx context.Context, key string) error {
	return s3Error(s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}))
}

func (s *s3) sign(ctx context.Context, key string, valid time.Duration) (string, error) {
	u, err := s.client.PresignedGetObject(ctx, s.bucket, key, valid, nil)
	if err != nil {
		return "", s3Error(err)
	}
	return u.String(), nil
}

// s3Error tells what is not there, and what a person must see to, from the rest.
func s3Error(err error) error {
	if err == nil {
		return nil
	}
	said := minio.ToErrorResponse(err)
	switch said.Code {
	case "NoSuchKey":
		return fmt.Errorf("%w: %v", fs.ErrNotExist, err)
	case "NoSuchBucket":
		return &refusal{err, "make the bucket first, or name another"}
	case "RequestTimeTooSkewed":
		return &refusal{err, "set this machine's clock"}
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return &refusal{err, "name the bucket's region with region=NAME in its URL"}
	}
	// Their codes differ from maker to maker.
	if said.StatusCode == http.StatusUnauthorized || said.StatusCode == http.StatusForbidden || said.Code == "AccessDenied" || strings.HasPrefix(said.Code, "InvalidAccessKey") {
		return &refusal{err, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; they need the rights to list the bucket, and to get, put and delete its objects"}
	}
	return err
}
