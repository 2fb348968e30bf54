% Do two pictures show the same character? Asks siamese_omniglot over REST.
%
%   octave verify.m http://localhost:8501 character_1.png character_2.png
%
% In MATLAB set these, and run verify:
%   server = 'http://localhost:8501'; files = {'character_1.png', 'character_2.png'};
% Needs Octave 7 or MATLAB, curl, and a server: keras-shared serve siamese_omniglot. One tower with
% one set of weights, stored once, looks at both pictures. (The tests run it in Octave alone.)
in_octave = exist('OCTAVE_VERSION', 'builtin') ~= 0;
if in_octave
  given = argv();
  if numel(given) ~= 3
    error('usage: octave verify.m SERVER PICTURE PICTURE');
  end
  server = given{1};
  files = given(2:3);
end

pictures = cell(1, 2);
for k = 1:2
  id = fopen(files{k}, 'r');
  if id < 0
    error('%s cannot be read', files{k});
  end
  bytes = fread(id, Inf, '*uint8')';
  fclose(id);
  if in_octave
    pictures{k} = struct('b64', base64_encode(bytes));
  else
    pictures{k} = struct('b64', matlab.net.base64encode(bytes));
  end
end
a = {pictures(1)};  % a batch of one pair
b = {pictures(2)};
inputs = struct('image_a_bytes', a, 'image_b_bytes', b);
body = jsonencode(struct('signature_name', 'verify_bytes', 'inputs', inputs));

file = tempname();
id = fopen(file, 'w');
fwrite(id, body);
fclose(id);
server = regexprep(char(server), '/+$', '');
address = [server '/v1/models/siamese_omniglot:predict'];
curl = 'curl -sS -w "\n%{http_code}" -d';  % the status in a line of its own behind the answer
[failed, text] = system([curl ' "@' file '" "' address '" 2>&1']);
delete(file);
if failed
  error('%s: %s', server, strtrim(text));
end
code = text(end - 2:end);
text = text(1:end - 4);
try  % a proxy answers with other text than JSON
  answer = jsondecode(text);
  probability = answer.outputs.probability;
catch
  probability = [];
end
if ~strcmp(code, '200') || isempty(probability) || ~isnumeric(probability)
  error('%s answers with status %s: %s', server, code, text(1:min(end, 500)));
end
fprintf('probability that both show the same: %.6f\n', probability);
