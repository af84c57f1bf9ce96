package format

import (
	"encoding/binary"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// fileScheme begins the URL of a MacX locator; what follows it is a host and
// a path, or with most writers a path alone, relative ones included.
const fileScheme = "file:"

// ParentPath is where a locator says that the parent is, as a POSIX system
// would open it.
type ParentPath struct {
	Path     string // separated by slashes, never empty, not cleaned: may hold ".."
	Absolute bool   // Path begins with a slash; else it is relative to the child's directory

	// Literal is a file URL's path with its escapes left as they stand, where
	// that differs from Path. tapdisk doesn't escape: in its images a name with
	// a percent sign in it means this.
	Literal string
}

// DecodeLocatorPath reads a locator's data, all of it up to DataLength, as the
// name of a parent: UTF-16LE, a file URL or ANSI, by the code, up to the first
// NUL.
//
// In Windows paths "\" separates, and a drive ("C:") is left out as tapdisk
// does. In a URL escapes and raw UTF-8 are both understood. Unpaired surrogates
// come as WTF-8 (see Header.ParentName). Whether the path leads somewhere
// good, ".." above all, is for the caller to judge.
//
// Errors are *Error, wrapping ErrBounds for data that is empty, longer than
// MaxLocatorLength or of odd length in UTF-16, and ErrField for a code that
// can't be read and for a name that is no path on this machine. A path on
// another host (\\server\share, file://server/) comes with such an error, to
// be shown: "//server/share".
func DecodeLocatorPath(code LocatorCode, data []byte) (ParentPath, error) {
	if len(data) == 0 || len(data) > MaxLocatorLength {
		return ParentPath{}, pathError(code, ErrBounds, "%d bytes, not 1 to %d", len(data), MaxLocatorLength)
	}
	switch code {
	case CodeW2ru, CodeW2ku:
		if len(data)%2 != 0 {
			return ParentPath{}, pathError(code, ErrBounds, "%d bytes is no length of UTF-16", len(data))
		}
		return windowsPath(code, decodeUTF16(data, binary.LittleEndian))
	case CodeWi2r, CodeWi2k:
		return windowsPath(code, decodeANSI(data))
	case CodeMacX:
		return urlPath(untilNUL(data))
	}
	return ParentPath{}, pathError(code, ErrField, "a locator of this kind can't be read")
}

// windowsPath turns a Windows path into a POSIX one.
func windowsPath(code LocatorCode, text string) (ParentPath, error) {
	p := strings.ReplaceAll(text, `\`, "/")
	p = strings.TrimPrefix(p, "//?/") // the prefix of long paths
	if unc, ok := strings.CutPrefix(p, "UNC/"); ok && strings.HasPrefix(text, `\\?\`) {
		p = "//" + unc
	}
	if strings.HasPrefix(p, "//") {
		return otherHost(code, p)
	}
	if len(p) >= 2 && p[1] == ':' && isLetter(p[0]) {
		p = p[2:]
	}
	return parentPath(code, p, "")
}

// urlPath takes the path out of a file URL. Before the path may be a host: none
// and "localhost" are this machine. tapdisk puts a relative path in its place,
// "file://./parent.vhd", so that "." and ".." are no hosts, nor is a name with
// nothing after it.
func urlPath(url string) (ParentPath, error) {
	if len(url) < len(fileScheme) || !strings.EqualFold(url[:len(fileScheme)], fileScheme) {
		return ParentPath{}, pathError(CodeMacX, ErrField, "%q is no file URL", url)
	}
	raw := url[len(fileScheme):]
	if rest, ok := strings.CutPrefix(raw, "//"); ok {
		host, _, more := strings.Cut(rest, "/")
		switch {
		case more && strings.EqualFold(host, "localhost"):
			raw = rest[len(host):]
		case host == "" || host == "." || host == ".." || !more:
			raw = rest
		default:
			return otherHost(CodeMacX, "//"+unescape(rest))
		}
	}
	p := unescape(raw)
	if strings.ContainsRune(p, 0) {
		return ParentPath{}, pathError(CodeMacX, ErrField, "%q has a NUL in it", url)
	}
	literal := raw
	if literal == p {
		literal = ""
	}
	return parentPath(CodeMacX, p, literal)
}

func parentPath(code LocatorCode, p, literal string) (ParentPath, error) {
	if p == "" {
		return ParentPath{}, pathError(code, ErrField, "the path is empty")
	}
	return ParentPath{Path: p, Absolute: path.IsAbs(p), Literal: literal}, nil
}

func otherHost(code LocatorCode, p string) (ParentPath, error) {
	return ParentPath{Path: p, Absolute: true}, pathError(code, ErrField, "%q is on another host", p)
}

// decodeANSI reads text of an unknown code page: UTF-8 if it is valid as that,
// else Latin-1.
func decodeANSI(data []byte) string {
	text := untilNUL(data)
	if utf8.ValidString(text) {
		return text
	}
	runes := make([]rune, len(text))
	for i := range len(text) {
		runes[i] = rune(text[i])
	}
	return string(runes)
}

func untilNUL(data []byte) string {
	text, _, _ := strings.Cut(string(data), "\x00")
	return text
}

// EncodeLocatorPath is the data of a locator for a POSIX path, relative to the
// child's directory or absolute, as Windows and tapdisk read it.
//
// W2ru takes a relative path and begins with ".\". W2ku takes either: tapdisk
// reads a relative one under it too. MacX is "file://" and the path, "./" or
// "/" first; of printable ASCII only "%", "#" and "?" are escaped, because
// tapdisk reads escapes as part of the name. Other codes are not written.
//
// Errors are *Error, wrapping ErrField for a path that the code can't express
// (an empty one, a NUL, and in Windows paths a backslash or what isn't UTF-8)
// and ErrBounds for more than MaxLocatorLength bytes.
func EncodeLocatorPath(code LocatorCode, name string) ([]byte, error) {
	rel := strings.TrimLeft(strings.TrimPrefix(name, "./"), "/")
	if rel == "" || strings.ContainsRune(name, 0) {
		return nil, pathError(code, ErrField, "%q is no path of a file", name)
	}
	if path.IsAbs(name) {
		name = "/" + rel
	} else {
		name = "./" + rel
	}
	var data []byte
	var err error
	switch code {
	case CodeW2ru, CodeW2ku:
		data, err = encodeWindows(code, name)
	case CodeMacX:
		data = []byte(fileScheme + "//" + escape(name))
	default:
		err = pathError(code, ErrField, "a locator of this kind is not written")
	}
	if err != nil {
		return nil, err
	}
	if len(data) > MaxLocatorLength {
		return nil, pathError(code, ErrBounds, "%d bytes, more than %d", len(data), MaxLocatorLength)
	}
	return data, nil
}

func encodeWindows(code LocatorCode, name string) ([]byte, error) {
	if code == CodeW2ru && path.IsAbs(name) {
		return nil, pathError(code, ErrField, "%q is not relative", name)
	}
	if strings.Contains(name, `\`) {
		return nil, pathError(code, ErrField, "%q has a backslash in it", name)
	}
	data, lossless := encodeUTF16(strings.ReplaceAll(name, "/", `\`), binary.LittleEndian)
	if !lossless {
		return nil, pathError(code, ErrField, "%q is not UTF-8", name)
	}
	return data, nil
}

func pathError(code LocatorCode, sentinel error, format string, args ...any) error {
	return &Error{Structure: "locator " + code.String(), Err: sentinel, Detail: fmt.Sprintf(format, args...)}
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
