"""The tables of the Korean pages, from those of the English ones: templates for headings, captions and cells.

{0}, {1}, ... are numbers, which stay, as does the name of a {machine}; other fields are words that are looked up in turn.
`code` stays, and what has no letters. The last templates take apart what none of the others fits.
"""

import functools
import re

from common.config import InputError

SAME = {"MNIST", "Frey Face", "VAE", "IWAE", "CVAE", "VQ-VAE", "AEVB", "MAP", "full VB", "A", "B", "ELBO", "KL", "− KL",
        "log p(x)", "−log p(x)", "−log p(x|y)", "log p(x|z)", "= log p(x|z)", "mlp", "conv", "torch eager", "torch best",
        "× eager"}

TEMPLATES = {
    # headings and captions
    "what": "항목", "paper": "논문", "ours": "이 저장소", "command": "명령", "time on": "걸린 시간",
    "{0} on {1} cores, {machine}": "{0}, 코어 {1}개, {machine}",
    "{0} on {machine}": "{0}, {machine}",
    "{command}, {0} on {1} cores, {machine}:": "{command}, {0}, 코어 {1}개, {machine}:",
    "{command}, {0} on {machine}:": "{command}, {0}, {machine}:",
    "Time in minutes:seconds, for all rows of a command together.": "시간은 분:초이며, 한 명령의 모든 행을 합한 것입니다.",
    "Time in minutes:seconds.": "시간은 분:초입니다.",
    "Nothing that has a figure in its paper was run so far.": "논문에 수가 있는 것 가운데 실행한 것이 아직 없습니다.",
    "Nothing was run so far.": "아직 실행한 것이 없습니다.",
    "epochs": "에폭", "test ELBO": "테스트 ELBO", "training time": "학습 시간",
    "Nats per image, one noise draw per test image; time in minutes:seconds on {0} cores of an {machine}.":
        "이미지당 냇이며, 테스트 이미지마다 잡음을 한 번 뽑았습니다. 시간은 분:초, 코어 {0}개인 {machine}에서.",

    # speed
    "one training step, images/s": "학습 한 단계, 이미지/초", "× ceiling": "× 천장",
    "level 1 (NumPy by hand)": "레벨 1(손으로 쓴 NumPy)", "level 2 (low-level torch)": "레벨 2(저수준 torch)",
    "level 3 (nn.Module)": "레벨 3(nn.Module)", "matrix products alone": "행렬 곱만",
    "level 3 beside plain PyTorch": "보통 PyTorch와 나란히 놓은 레벨 3", "plain": "보통 PyTorch", "level 3": "레벨 3",
    "training loop of 784-400-20 with its data, images/s; the well-known example: DataLoader, PIL":
        "데이터까지 포함한 784-400-20의 학습 반복문, 이미지/초; 널리 알려진 예제: DataLoader, PIL",
    "the same with matrix products in bfloat16 inside, `--matmul medium`":
        "같은 것을 안의 행렬 곱만 bfloat16으로, `--matmul medium`",
    "training of 784-500-20 to a test ELBO of −100, dynamic MNIST": "784-500-20을 테스트 ELBO −100까지 학습, 동적 MNIST",
    "log p(x) of 784-200-200-50, {0} samples; plain: all in one block":
        "784-200-200-50의 log p(x), 표본 {0}개; 보통 PyTorch: 모두 한 블록으로",
    "{0} × the speed": "속도 {0}배", "{0} × the time": "시간 {0}배", "{0} s": "{0}초", "{0} ms an image": "이미지당 {0}ms",
    "not reached": "이르지 못함",
    "Batch {0}, float32, {1} cores of an {machine}; {command} prints yours.":
        "배치 {0}, float32, 코어 {1}개인 {machine}; 여러분의 수는 {command}가 출력합니다.",

    # data, models, counts
    "Dynamic MNIST": "동적 MNIST", "dynamic MNIST": "동적 MNIST", "static MNIST": "정적 MNIST", "dynamic": "동적",
    "MNIST averaged to {0} x {1}": "{0} x {1}로 평균한 MNIST", "Digits averaged to {0} x {1}": "{0} x {1}로 평균한 숫자",
    "Digits": "숫자", "digits": "숫자", "Moons": "초승달(moons)", "Pinwheel": "바람개비(pinwheel)",
    "autoencoder": "오토인코더", "conditional VAE": "조건부 VAE", "plain network": "보통 신경망",
    "wake-sleep": "웨이크-슬립", "Wake-sleep": "웨이크-슬립", "Monte Carlo EM": "몬테카를로 EM",
    "chain": "사슬", "chain with batch norm": "배치 정규화가 있는 사슬", "ladder": "사다리",
    "{0} layer": "층 {0}개", "{0} layers": "층 {0}개",
    "No cure": "해결책 없음", "Annealing": "담금질(annealing)", "Cyclical annealing": "주기적 담금질(cyclical annealing)",
    "Free bits, {0} nats": "공짜 비트 {0}냇", "Weak decoder": "약한 디코더",
    "exponential": "지수 분포", "logistic": "로지스틱 분포", "Laplace": "라플라스 분포", "Gaussian": "가우시안",
    "log-normal": "로그 정규 분포", "Bernoulli": "베르누이",
    "{0} latent": "잠재 변수 {0}개", "{0} latents": "잠재 변수 {0}개",
    "{0} + {counts} latents": "잠재 변수 {0} + {counts}개",
    "from {0} to {1} latents": "잠재 변수 {0}개에서 {1}개까지", "latents in use": "쓰이는 잠재 변수",
    "{0} hidden units": "은닉 유닛 {0}개", "{0} x {1} hidden units": "은닉 유닛 {0} x {1}개",
    "{0} active units": "활성 유닛 {0}개", "active units of {0}": "{0}개 가운데 활성 유닛", "active units": "활성 유닛",
    "{0} test images": "테스트 이미지 {0}장", "{0} training images": "학습 이미지 {0}장", "{0} images": "이미지 {0}장",
    "{0} held-out points": "따로 떼어 둔 점 {0}개", "{0} samples": "표본 {0}개", "{0} epochs": "{0}에폭",
    "train": "학습", "test": "테스트", "step {0}": "{0}단계", "all steps": "모든 단계",
    **{f"{name} = {{0}}": f"{name} = {{0}}" for name in ("L", "N", "k", "beta")},
    "nats": "냇", "nats²": "냇²", "nats per image": "이미지당 냇", "{what} in nats": "{what}, 냇",
    "{what}, nats": "{what}, 냇",
    "bound": "하한", "test bound": "테스트 하한", "training bound": "학습 하한",
    "{0} of {1}": "{1}개 가운데 {0}개", "{0} to {1}": "{0}–{1}",

    # nll, estimators, reparameterizations, toy
    "variance of one image's estimate": "이미지 한 장에 대한 추정값의 분산",
    "variance of the encoder's gradient, A / B, and A without its score, in B's":
        "인코더 그래디언트의 분산, A / B, 그리고 점수(score)를 뺀 A, B의 분산을 단위로",
    "mean of A − B": "A − B의 평균", "B typically lower": "대개 B가 더 작음", "equal": "같음",
    "variance of score function with baseline / pathwise, f = z², sin z, log sigmoid z, sin 8z, "
    "log sigmoid z summed over {0}":
        "기준선(baseline)을 둔 점수 함수의 분산 / 경로 그래디언트의 분산, f = z², sin z, log sigmoid z, sin 8z, "
        "{0}개에 대해 더한 log sigmoid z",
    "Furthest mean from its exact gradient, in standard errors":
        "정확한 그래디언트에서 가장 멀리 있는 평균까지의 거리, 표준 오차 단위",
    "log p(x) by quadrature / by importance sampling": "log p(x), 구적법(quadrature) / 중요도 표집",
    "ELBO, and its gap to log p(x)": "ELBO, 그리고 log p(x)까지의 간격",

    # ae-vs-vae
    "reconstruction error in nats, no likelihood": "재구성 오차, 냇, 우도가 아님",
    "largest of {0} steps of a walk, share of its path": "걷기의 {0}걸음 가운데 가장 큰 것이 길 전체에서 차지하는 몫",
    "reconstructions that a classifier reads (of real images {0}; its accuracy on them is {1})":
        "분류기가 읽는 재구성(실제 이미지는 {0}를 읽고, 그 정확도는 {1})",
    "middles of walks that it reads": "분류기가 읽는 걷기 한가운데의 그림",
    "draws from N(0, I) that it reads; from a Gaussian fitted to the autoencoder's codes":
        "분류기가 읽는, N(0, I)에서 뽑은 그림; 오토인코더의 코드에 맞춘 가우시안에서 뽑은 그림",
    "kinds of digits in these draws, of {0}": "이렇게 뽑은 그림에 나오는 숫자의 종류, {0}가지 가운데",

    # fig2 to fig5, frey-walk
    "bound of {0} test images after {1} samples": "표본 {1}개로 학습한 뒤 테스트 이미지 {0}장의 하한",
    "AEVB higher": "AEVB가 더 높음", "above 0": "0보다 큼",
    "least lead of AEVB over wake-sleep from {0} samples on, train and test":
        "표본 {0}개부터 AEVB가 웨이크-슬립을 가장 적게 앞설 때의 차, 학습과 테스트",
    "{0} ({1} latents, {which})": "{0} (잠재 변수 {1}개, {which})",
    "end below the best test bound / training above test bound at the end":
        "끝이 가장 좋은 테스트 하한보다 낮은 만큼 / 끝에서 학습 하한이 테스트 하한보다 높은 만큼",
    "superfluous latents do not overfit": "남아도는 잠재 변수는 과적합하지 않음",
    "minutes for a million training samples": "학습 표본 백만 개에 걸리는 분",
    "{0} to {1} (figure 2's networks)": "{0}–{1} (그림 2의 신경망)", "curves only": "곡선뿐",
    "log p(x) of {0} {which} images by appendix D after {1} samples":
        "표본 {1}개로 학습한 뒤 부록 D로 잰 {which} 이미지 {0}장의 log p(x)",
    "appendix D and importance sampling, k = {0}, furthest apart at any point of any curve":
        "부록 D와 중요도 표집(k = {0})이 모든 곡선의 모든 점 가운데 가장 멀리 떨어진 곳의 차",
    "log p(x) by appendix D / importance sampling from its draws / from the encoder / quadrature":
        "log p(x), 부록 D / 거기서 뽑은 것을 쓴 중요도 표집 / 인코더에서 뽑은 중요도 표집 / 구적법",
    "plane of {0} x {1}": "{0} x {1} 평면",
    "step between neighbors, mean / largest, as a share of the mean distance between any two pictures":
        "이웃한 그림 사이의 거리, 평균 / 최대, 아무 두 그림 사이의 평균 거리에 대한 비",
    "posterior means of {0} test images that lie inside the drawn plane ({1} if they spread as the prior)":
        "테스트 이미지 {0}장의 사후 분포 평균 가운데 그려진 평면 안에 있는 것(사전 분포처럼 퍼진다면 {1})",
    "test bound of the model that drew": "그림을 뽑은 모델의 테스트 하한",
    "from the nearest training image, root mean square of pixels: middles of {0} walks / of cross-fades":
        "가장 가까운 학습 이미지까지의 거리, 픽셀의 제곱 평균 제곱근: "
        "걷기 {0}번의 한가운데 / 두 이미지를 포갠 것의 한가운데",
    "the same for reconstructions of test images / for the test images themselves":
        "같은 거리, 테스트 이미지의 재구성 / 테스트 이미지 자체",

    # full-vb
    "best test bound on the way": "학습하는 동안 가장 좋은 테스트 하한",
    "test bound, q(z|x) fitted to each of {0} images": "이미지 {0}장에 하나하나 q(z|x)를 맞춘 테스트 하한",
    "bound on log p(X) / N / KL of the weights in it / test bound at the mean weights":
        "log p(X) / N의 하한 / 그 안에 든 가중치의 KL / 평균 가중치에서 잰 테스트 하한",

    # conditional, quadrants
    "draws x ~ p(x|z, y), {0} a label, read as the label asked for; reconstructions "
    "(accuracy of the classifier on real images: {1})":
        "레이블마다 {0}번 뽑은 x ~ p(x|z, y) 가운데 주문한 레이블로 읽히는 것; "
        "재구성(실제 이미지에서 분류기의 정확도: {1})",
    "the label that is obeyed least": "가장 덜 지켜진 레이블",
    "{0} quadrant observed": "사분면 {0}개를 봄", "{0} quadrants observed": "사분면 {0}개를 봄",
    "gray pixels (no likelihood)": "회색 픽셀(우도가 아님)", "binarized pixels": "이진화한 픽셀",
    "−log p(missing pixels)": "−log p(빠진 픽셀)",
    "bound / importance sampling, {0} draws from q / Monte Carlo, {1} draws from the prior network":
        "하한 / 중요도 표집, q에서 {0}번 뽑음 / 몬테카를로, 사전 분포 신경망에서 {1}번 뽑음",
    "{0} (Pyro)": "{0} (Pyro)",

    # vq-vae, hierarchy
    "VQ-VAE with the learnt prior": "학습한 사전 분포를 쓴 VQ-VAE", "bound on log p(x)": "log p(x)의 하한",
    "{0} test images of MNIST": "MNIST 테스트 이미지 {0}장", "{0} test images of digits": "숫자 테스트 이미지 {0}장",
    "nats (bits per dimension)": "냇(차원당 비트)",
    "VQ-VAE with the uniform prior": "균등 사전 분포를 쓴 VQ-VAE", "the same convolutions": "같은 합성곱",
    "log p(z) of the codes with the learnt and the uniform prior": "학습한 사전 분포와 균등 사전 분포에서 코드의 log p(z)",
    "perplexity of the codes, of {0}": "코드의 퍼플렉시티, {0} 가운데",
    "the same with a codebook learnt by gradients": "그래디언트로 배운 코드북일 때", "perplexity": "퍼플렉시티",
    "draws that a classifier reads with {0} confidence (of real test images {1}): "
    "VQ-VAE with the learnt / the uniform prior, VAE":
        "분류기가 {0}의 확신으로 읽는, 뽑은 그림(실제 테스트 이미지는 {1}): VQ-VAE, 학습한 / 균등 사전 분포, 그리고 VAE",
    "minutes of training: VQ-VAE, its prior, VAE": "학습에 걸린 분: VQ-VAE, 그 사전 분포, VAE",
    "KL of each layer in nats, lowest first": "층마다의 KL, 냇, 가장 아래층부터", "minutes of training": "학습에 걸린 분",

    # beta-vae, rate-distortion, collapse
    "beta-VAE score / FactorVAE score / MIG": "beta-VAE 점수 / FactorVAE 점수 / MIG",
    "mean and sd of {0} seeds ({network}, {1} images each)":
        "시드 {0}개의 평균과 표준 편차({network}, 저마다 이미지 {1}장)",
    "capacity": "용량(capacity)", "not trained": "학습하지 않음", "pixels": "픽셀",
    "{0} principal components": "주성분 {0}개",
    "scores that are higher with beta = {0} than with beta = {1}, on average; by how much, with the standard error":
        "beta = {0}일 때 beta = {1}일 때보다 평균이 높은 점수; 얼마나 높은지, 표준 오차와 함께",
    "bound / KL in nats, and latents with more than {0} nats": "하한 / KL, 냇, 그리고 {0}냇이 넘는 잠재 변수",
    "rate + distortion = −ELBO": "율(rate) + 왜곡(distortion) = −ELBO",
    "log p(x) by {0} samples": "표본 {0}개로 잰 log p(x)",
    "ELBO of the same {0} test images": "같은 테스트 이미지 {0}장의 ELBO",
    "draws x' ~ p(x|z), z ~ q(z|x), read as the digit of x (real images: {0})":
        "x의 숫자로 읽히는, 뽑은 x' ~ p(x|z), z ~ q(z|x) (실제 이미지: {0})",

    # what none of these fits
    "{head}: {rest}": "{head}: {rest}", "{head}; {rest}": "{head}; {rest}", "{head}, {rest}": "{head}, {rest}",
    "{head} / {rest}": "{head} / {rest}", "{distribution} {0}": "{distribution} {0}",
}
FIELD, NUMBER = re.compile(r"\{(\w+)\}"), "[-+−]?[0-9][0-9,.:]*%?"


def pattern_of(english: str) -> re.Pattern:
    """What a template fits; its fields are groups, named with an underscore before them."""
    pieces = FIELD.split(english)                       # text, field, text, field, ..., text
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = [f"(?P<_{field}>{NUMBER if field.isdigit() else '.+?'})" for field in pieces[1::2]]
    return re.compile("".join(pieces))


PATTERNS = [(pattern_of(english), template) for english, template in TEMPLATES.items()]


@functools.cache
def look_up(text: str) -> str | None:
    if text in SAME or not re.search("[A-Za-z]", re.sub("`[^`]*`", "", text)):
        return text
    for pattern, template in PATTERNS:
        if found := pattern.fullmatch(text):
            fields = {name: value if name == "_machine" else look_up(value) for name, value in found.groupdict().items()}
            if None not in fields.values():
                return FIELD.sub(lambda field, fields=fields: fields["_" + field[1]], template)
    return None


def korean(text: str) -> str:
    """The Korean of a heading, a caption or a cell of the tables. Raises InputError where there is none."""
    told = look_up(text)
    if told is None:
        raise InputError(f"no Korean for {text!r}: give it a template in common/korean.py")
    return told


def korean_table(lines: list[str]) -> list[str]:
    """A table and its captions, line by line as they stand in a page."""
    def cell(found):
        return found[1] + korean(found[2].replace("\\|", "|")).replace("|", "\\|") + found[3]
    return [re.sub(r"(?<=\| )(\**)([^ |*].*?)(\**)(?= \|)", cell, line) if line.startswith("|") else korean(line)
            for line in lines]
