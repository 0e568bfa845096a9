#!/usr/bin/env bash
# Builds the training image and pushes it to an ECR repository that exists; makes nothing else.
#
#   deploy/build_and_push.sh [--tag TAG] [--allow-dirty] ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME
#
# Prints one line on stdout, the image's URI with its digest, for `mrigan launch --image`. BASE,
# REQUIREMENTS and UV_TORCH_BACKEND are handed to the build where they are set (see Dockerfile).
set -euo pipefail

fail() {
    echo "build_and_push: $1" >&2
    exit "${2:-1}"
}

tag='' allow_dirty='' repository=''
while [ $# -gt 0 ]; do
    case $1 in
        --tag)
            tag=${2-}
            [ -n "$tag" ] || fail "--tag: needs a tag" 2
            shift
            ;;
        --allow-dirty) allow_dirty=yes ;;
        -h | --help)
            sed -n '2,7s/^# \{0,1\}//p' "$0"
            exit
            ;;
        -*) fail "$1: unknown option; --help shows how" 2 ;;
        *)
            [ -z "$repository" ] || fail "$1: one repository at a time" 2
            repository=$1
            ;;
    esac
    shift
done

# The repository's own region and account, so that AWS_REGION can't contradict them.
pattern='^(([0-9]{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?)/([a-z0-9][a-z0-9._/-]*)$'
[[ $repository =~ $pattern ]] ||
    fail "${repository:-(nothing)}: no ECR repository, ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME without a tag" 2
registry=${BASH_REMATCH[1]} account=${BASH_REMATCH[2]} region=${BASH_REMATCH[3]} name=${BASH_REMATCH[5]}

for tool in git docker aws; do
    command -v "$tool" >/dev/null || fail "$tool: not installed"
done
cd "$(dirname "$0")/.."

commit=$(git rev-parse --short=12 HEAD) || fail "$PWD: no git checkout to name the image after"
changes=$(git status --porcelain)
if [ -n "$changes" ]; then
    [ -n "$allow_dirty" ] ||
        fail "uncommitted changes: commit them, or give --allow-dirty (git status shows them)"
    # Tags are immutable, so every build of an uncommitted state gets its own.
    commit=$commit-dirty-$(date -u +%Y%m%d%H%M%S)
fi
tag=${tag:-$commit}

# Prints "DIGEST MEDIA-TYPE" of the tag, or nothing if the repository has no such tag.
describe() {
    local answer
    if answer=$(aws ecr describe-images --registry-id "$account" --region "$region" \
        --repository-name "$name" --image-ids "imageTag=$tag" --output text \
        --query 'imageDetails[0].[imageDigest,imageManifestMediaType]' 2>&1); then
        echo "$answer"
    elif [[ $answer == *RepositoryNotFoundException* ]]; then
        fail "$repository: does not exist; make it with deploy/terraform"
    elif [[ $answer != *ImageNotFoundException* ]]; then
        fail "$repository: ${answer//$'\n'/ }"
    fi
}

build_and_push() {
    local arguments=() argument
    for argument in BASE REQUIREMENTS UV_TORCH_BACKEND; do
        [ -z "${!argument-}" ] || arguments+=(--build-arg "$argument=${!argument}")
    done
    aws ecr get-login-password --region "$region" |
        docker login --username AWS --password-stdin "$registry"
    # SageMaker runs x86 and takes a plain manifest; attestations would wrap it in an OCI index.
    # (Quoted in this way, bash 3.2 of macOS takes an empty list.)
    docker buildx build --platform linux/amd64 --provenance=false --sbom=false --output type=docker \
        --tag "$repository:$tag" ${arguments[@]+"${arguments[@]}"} .
    docker push "$repository:$tag"
}

found=$(describe)
if [ -n "$found" ]; then
    echo "build_and_push: $repository:$tag is there already" >&2
else
    build_and_push >&2
    found=$(describe)
fi

read -r digest media_type <<<"$found"
[[ $digest == sha256:* ]] || fail "$repository:$tag: pushed, but the registry does not know it"
case $media_type in
    *.docker.distribution.manifest.v2+json) ;;
    *index* | *list*) fail "$repository:$tag: $media_type, an index, which SageMaker does not take; build with another engine" ;;
    *) echo "build_and_push: warning: $media_type; SageMaker may want a Docker v2 manifest" >&2 ;;
esac
echo "$repository@$digest"
